//! Whose slices these are: patients, frames of reference and unique identifiers.

use super::codes::Code;
use super::findings::Finding;
use super::members::{Member, Names};
use super::plane::Placed;
use super::wording::{are, count, share};
use crate::dicom::{PatientIdentity, is_valid_uid};
use std::collections::{BTreeMap, BTreeSet};

/// `mixed_patients`, told without a patient's data.
pub(super) fn patients(members: &[Member<'_>], names: &Names) -> Option<Finding> {
    let mut groups: BTreeMap<&PatientIdentity, Vec<&Member<'_>>> = BTreeMap::new();
    for member in members {
        groups.entry(&member.header.patient).or_default().push(member);
    }
    let identities: Vec<PatientIdentity> = groups.keys().map(|identity| normalised(identity)).collect();
    type Part = fn(&PatientIdentity) -> &str;
    // An absent PatientID is one of its own; the others may be absent in a part of the instances without telling of somebody else.
    let parts: [(&str, bool, Part); 4] = [
        ("patient ID", true, |p| &p.id),
        ("issuer of the patient ID", false, |p| &p.issuer),
        ("patient name", false, |p| &p.name),
        ("birth date", false, |p| &p.birth_date),
    ];
    let mut different = Vec::new();
    for (what, absent_counts, part) in parts {
        let values: BTreeSet<&str> = identities
            .iter()
            .map(part)
            .filter(|value| absent_counts || !value.is_empty())
            .collect();
        if values.len() > 1 {
            different.push(what);
        }
    }
    if different.is_empty() {
        return None;
    }
    let most = groups.values().map(Vec::len).max().unwrap_or(0);
    let mut minority: Vec<String> = Vec::new();
    let mut spared = false;
    for members in groups.values() {
        if members.len() == most && !spared {
            spared = true;
            continue;
        }
        minority.extend(members.iter().map(|m| names.of(m)));
    }
    let sentence = format!(
        "The slices name more than one patient: {} differ{} ({} {} not like the rest).",
        different.join(" and "),
        if different.len() == 1 { "s" } else { "" },
        share(minority.len(), members.len()),
        are(minority.len())
    );
    Some(Finding::new(Code::MixedPatients, sentence).about(minority))
}

/// Without what two writers may add to one name: case, padding and empty trailing components (PS3.5 6.2.1).
fn normalised(identity: &PatientIdentity) -> PatientIdentity {
    let name: Vec<String> = identity
        .name
        .split('=')
        .map(|group| group.trim_end_matches(['^', ' ']).trim().to_uppercase())
        .collect();
    PatientIdentity {
        id: identity.id.trim().to_owned(),
        issuer: identity.issuer.trim().to_owned(),
        name: name.join("=").trim_end_matches('=').to_owned(),
        birth_date: identity.birth_date.trim().to_owned(),
    }
}

/// `mixed_frames_of_reference`, or the note that every instance has one of its own: several public collections were anonymised so (LIDC-IDRI), and such
/// UIDs tell nothing. Absent ones tell nothing either.
pub(super) fn frames_of_reference(members: &[Member<'_>], names: &Names) -> Option<Finding> {
    let mut groups: BTreeMap<&str, BTreeMap<usize, &Member<'_>>> = BTreeMap::new();
    for member in members.iter().filter(|m| !m.header.frame_of_reference_uid.is_empty()) {
        groups
            .entry(&member.header.frame_of_reference_uid)
            .or_default()
            .entry(member.instance)
            .or_insert(member);
    }
    if groups.len() < 2 {
        return None;
    }
    // Copies of one instance share its UID and are no second use of it.
    let instances = |group: &BTreeMap<usize, &Member<'_>>| {
        group
            .values()
            .map(|m| m.header.sop_instance_uid.as_str())
            .collect::<BTreeSet<_>>()
            .len()
    };
    let single = members.iter().all(|m| m.header.frames.len() == 1);
    if single && groups.len() > 2 && groups.values().all(|group| instances(group) == 1) {
        let sentence = format!(
            "Each of the {} instances names a frame of reference of its own, as some anonymisers leave it; their positions are taken as belonging together.",
            groups.len()
        );
        return Some(Finding::new(Code::FrameOfReferencePerInstance, sentence));
    }
    let parts: Vec<String> = groups.values().map(|group| group.len().to_string()).take(6).collect();
    let sentence = format!(
        "The slices belong to {} frames of reference (with {} instances), so their positions cannot be compared.",
        groups.len(),
        parts.join(", ")
    );
    let most = groups.values().map(BTreeMap::len).max().unwrap_or(0);
    let reference = groups
        .iter()
        .find(|(_, group)| group.len() == most)
        .map(|(uid, _)| *uid);
    let others = groups
        .iter()
        .filter(|(uid, _)| Some(**uid) != reference)
        .flat_map(|(_, group)| group.values());
    Some(Finding::new(Code::MixedFramesOfReference, sentence).about(others.map(|m| names.of(m))))
}

/// `identity_invalid`: UIDs absent or malformed, or one SOP Instance UID on slices at different places. A segmentation could not name its source. A frame
/// of reference that is absent or malformed does not matter: a segmentation can do without.
pub(super) fn unique_identifiers(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let mut faults: Vec<String> = Vec::new();
    let mut concerned: BTreeSet<String> = BTreeSet::new();
    type Part = fn(&crate::dicom::Header) -> &str;
    let parts: [(&str, Part); 4] = [
        ("study", |h| &h.study_instance_uid),
        ("series", |h| &h.series_instance_uid),
        // A reference names the class beside the instance (PS3.3 10.8).
        ("SOP class", |h| &h.sop_class_uid),
        ("SOP instance", |h| &h.sop_instance_uid),
    ];
    for (what, part) in parts {
        let (mut absent, mut malformed) = (0, 0);
        for placed in slices {
            let uid = part(placed.member.header);
            if uid.is_empty() {
                absent += 1;
            } else if !is_valid_uid(uid) {
                malformed += 1;
            } else {
                continue;
            }
            concerned.insert(names.of(&placed.member));
        }
        if absent > 0 {
            faults.push(format!("the {what} UID is absent in {}", count(absent, "slice")));
        }
        if malformed > 0 {
            faults.push(format!("the {what} UID is malformed in {}", count(malformed, "slice")));
        }
    }
    let mut seen: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    let mut twice = 0;
    for placed in slices.iter().filter(|p| !p.member.header.sop_instance_uid.is_empty()) {
        let key = (placed.member.header.sop_instance_uid.as_str(), placed.member.frame);
        let times = seen.entry(key).or_default();
        *times += 1;
        if *times > 1 {
            twice += 1;
            concerned.insert(names.of(&placed.member));
        }
    }
    if twice > 0 {
        faults.push(format!(
            "{} at another place {} the SOP instance UID of an earlier one",
            count(twice, "slice"),
            if twice == 1 { "has" } else { "have" }
        ));
    }
    if faults.is_empty() {
        return None;
    }
    let sentence = format!(
        "No DICOM Segmentation can be written, since it could not name its source: {}. Everything else is written.",
        faults.join("; ")
    );
    Some(Finding::new(Code::IdentityInvalid, sentence).about(concerned))
}
