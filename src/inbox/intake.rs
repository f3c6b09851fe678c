//! The chunks of one body in, a sealed batch file and what it holds out. Blocking: it runs on a thread of its own, fed by a bounded channel.
//!
//! Each part is written as it comes, its digest taken on the way. Once it is whole its header is read; what is a CT and not held already stays in the file, and
//! everything else is dropped from it again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::batch::BatchFile;
use super::disk::Disk;
use super::error::IngestError;
use super::under_way::UnderWay;
use crate::database::{ArrivedInstance, ArrivedSeries, DatabaseError, IgnoredBecause, InstanceDigest, failpoint};
use crate::dicom::{DicomError, Header, Limits, Source, read_header};
use crate::dicomweb::Failure;
use crate::dicomweb::multipart::{Boundary, Event, Parser, PartLimits};
use crate::series::Code;

/// The classes of CT images, for instances that do not name a modality.
const CT_CLASSES: [&str; 3] = [
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
];

/// AccessionNumber.
const ACCESSION_NUMBER: (u16, u16) = (0x0008, 0x0050);
/// Longest UID (PS3.5 section 9.1).
const LONGEST_UID: usize = 64;
/// Longest text that is kept of a header.
const LONGEST_TEXT: usize = 256;
/// The disk is looked at each time that so many bytes were written.
const LOOK_AT_DISK_EVERY: u64 = 64 << 20;

/// What became of one part, as far as its bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An instance that is kept, or held already.
    Taken { series: usize, at: usize },
    /// An instance that is no CT.
    Dropped {
        series: usize,
        sop_class_uid: String,
        sop_instance_uid: String,
    },
    /// An instance that cannot be taken.
    Failed {
        sop_class_uid: String,
        sop_instance_uid: String,
        reason: u16,
    },
    /// Bytes that are no instance.
    Unreadable,
}

/// What a body held.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The sealed file; `None`: nothing in the body had to be kept.
    pub(super) batch: Option<BatchFile>,
    pub(super) series: Vec<ArrivedSeries>,
    pub(super) parts: Vec<Part>,
}

/// What an intake is made with.
pub(super) struct IntakeOptions {
    pub(super) folder: PathBuf,
    pub(super) parts: PartLimits,
    pub(super) headers: Limits,
    /// Bytes that must stay free on the disk.
    pub(super) disk_reserve_bytes: u64,
    /// The study of the URL.
    pub(super) study: Option<String>,
    /// The PACS that sends.
    pub(super) pacs: Option<String>,
    /// What the sender calls itself, where it is no PACS that we know.
    pub(super) unknown_source: Option<String>,
    /// Is told the series that come.
    pub(super) under_way: UnderWay,
    /// The series of a part that takes longer is told before the part is whole.
    pub(super) slow_part: Duration,
}

/// Asks which instances of (study, series) are held.
pub(super) type Held = Box<dyn FnMut(&str, &str) -> Result<HashSet<(String, InstanceDigest)>, DatabaseError> + Send>;

/// Takes in one body.
pub(super) struct Intake {
    options: IntakeOptions,
    parser: Parser,
    held: Held,
    batch: Option<BatchFile>,
    hasher: Sha256,
    /// When the part that is coming is looked at for its series; `None`: its series was told.
    peek_at: Option<Instant>,
    written_since_look: u64,
    /// (study, series) to its place in `series`; in `known` what is held of it.
    places: HashMap<(String, String), usize>,
    known: Vec<HashSet<(String, InstanceDigest)>>,
    series: Vec<ArrivedSeries>,
    parts: Vec<Part>,
}

impl Intake {
    pub(super) fn new(boundary: &Boundary, options: IntakeOptions, held: Held) -> Intake {
        Intake {
            parser: Parser::new(boundary, options.parts),
            options,
            held,
            batch: None,
            hasher: Sha256::new(),
            peek_at: None,
            written_since_look: 0,
            places: HashMap::new(),
            known: Vec::new(),
            series: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Takes the next chunk.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), IngestError> {
        self.parser.push(chunk);
        while let Some(event) = self.parser.next()? {
            match event {
                Event::Part(_) => {
                    self.hasher = Sha256::new();
                    self.peek_at = Instant::now().checked_add(self.options.slow_part);
                }
                Event::Data(bytes) => self.data(&bytes)?,
                Event::PartEnd => {
                    let part = self.part_end()?;
                    self.parts.push(part);
                }
                Event::End => {}
            }
        }
        Ok(())
    }

    /// The body is over: the file is cut to what is kept, and synced.
    pub(super) fn finish(mut self) -> Result<Gathered, IngestError> {
        self.parser.finish()?;
        if self.parts.is_empty() {
            return Err(IngestError::NoPart);
        }
        let batch = match self.batch.take() {
            Some(mut batch) if batch.length() > 0 => {
                batch.seal()?;
                failpoint("ingest_synced");
                Some(batch)
            }
            _ => None,
        };
        Ok(Gathered {
            batch,
            series: self.series,
            parts: self.parts,
        })
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), IngestError> {
        self.written_since_look += bytes.len() as u64;
        if self.written_since_look >= LOOK_AT_DISK_EVERY {
            self.written_since_look = 0;
            if Disk::of(&self.options.folder)?.free_bytes < self.options.disk_reserve_bytes {
                return Err(IngestError::DiskFull);
            }
        }
        self.hasher.update(bytes);
        let batch = match &mut self.batch {
            Some(batch) => batch,
            none => none.insert(BatchFile::create(&self.options.folder)?),
        };
        batch.append(bytes)?;
        failpoint("ingest_written");
        if self.peek_at.is_some_and(|at| at <= Instant::now()) {
            self.peek();
        }
        Ok(())
    }

    /// Tells the series of a part that is still coming, as soon as its header is there.
    fn peek(&mut self) {
        let Some(batch) = &self.batch else { return };
        let source = Source {
            path: Arc::from(batch.path()),
            offset: batch.instance().0,
            // How long it will be is not known; what its header says of its pixels must fit.
            length: self.options.parts.part_bytes,
        };
        let header = read_header(&source, &self.options.headers).map(|instance| instance.header);
        match header {
            Ok(header) if is_usable_uid(&header.study_instance_uid) && is_usable_uid(&header.series_instance_uid) => {
                self.options
                    .under_way
                    .add(&header.study_instance_uid, &header.series_instance_uid);
                self.peek_at = None;
            }
            _ => self.peek_at = Instant::now().checked_add(self.options.slow_part),
        }
    }

    fn part_end(&mut self) -> Result<Part, IngestError> {
        let digest: InstanceDigest = std::mem::take(&mut self.hasher).finalize().into();
        let Some(batch) = &self.batch else {
            return Ok(Part::Unreadable);
        };
        let (offset, length) = batch.instance();
        let source = Source {
            path: Arc::from(batch.path()),
            offset,
            length,
        };
        let (part, keep) = match read_header(&source, &self.options.headers) {
            Ok(instance) => self.instance(&instance.header, digest, (offset, length))?,
            Err(DicomError::Io { error, .. }) => return Err(error.into()),
            Err(error) => {
                tracing::debug!(reason = error.reason(), "a part is no instance");
                (Part::Unreadable, false)
            }
        };
        if let Some(batch) = &mut self.batch {
            if keep {
                batch.keep_instance();
            } else {
                batch.drop_instance();
            }
        }
        Ok(part)
    }

    /// Where an instance belongs, and whether its bytes are to be kept.
    fn instance(
        &mut self,
        header: &Header,
        digest: InstanceDigest,
        place: (u64, u64),
    ) -> Result<(Part, bool), IngestError> {
        if !is_usable_uid(&header.sop_instance_uid) {
            return Ok((Part::Unreadable, false));
        }
        let (sop_class_uid, sop_instance_uid) = (text(&header.sop_class_uid), header.sop_instance_uid.clone());
        let failure = if !is_usable_uid(&header.study_instance_uid) || !is_usable_uid(&header.series_instance_uid) {
            Some(Failure::CANNOT_UNDERSTAND)
        } else {
            let other = |study: &String| *study != header.study_instance_uid;
            self.options
                .study
                .as_ref()
                .is_some_and(other)
                .then_some(Failure::PROCESSING)
        };
        if let Some(reason) = failure {
            let part = Part::Failed {
                sop_class_uid,
                sop_instance_uid,
                reason,
            };
            return Ok((part, false));
        }
        let series = self.series_of(header)?;
        if !is_ct(header) {
            let dropped = self.series[series].dropped.get_or_insert_with(|| (0, not_ct(header)));
            dropped.0 += 1;
            let part = Part::Dropped {
                series,
                sop_class_uid,
                sop_instance_uid,
            };
            return Ok((part, false));
        }
        let keep = self.known[series].insert((sop_instance_uid.clone(), digest));
        let instances = &mut self.series[series].instances;
        let at = instances.len();
        instances.push(ArrivedInstance {
            sop_instance_uid,
            sop_class_uid,
            transfer_syntax_uid: text(&header.transfer_syntax_uid),
            digest,
            place: keep.then_some(place),
        });
        Ok((Part::Taken { series, at }, keep))
    }

    /// The place of the series of an instance; what is held of it is asked once a request.
    fn series_of(&mut self, header: &Header) -> Result<usize, IngestError> {
        let key = (header.study_instance_uid.clone(), header.series_instance_uid.clone());
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        self.options.under_way.add(&key.0, &key.1);
        let held = (self.held)(&key.0, &key.1)?;
        let accession = header.identity.iter().find(|element| element.tag == ACCESSION_NUMBER);
        let accession = accession.map(|element| String::from_utf8_lossy(&element.value).into_owned());
        let place = self.series.len();
        self.known.push(held);
        self.series.push(ArrivedSeries {
            study_uid: key.0.clone(),
            series_uid: key.1.clone(),
            source: self.options.pacs.clone(),
            unknown_source: self.options.unknown_source.clone(),
            modality: text(&header.modality),
            accession_number: text(accession.unwrap_or_default().trim()),
            patient_id: text(&header.patient.id),
            study_date: text(&header.study_date),
            study_description: text(&header.study_description),
            series_description: text(&header.series_description),
            ..ArrivedSeries::default()
        });
        self.places.insert(key, place);
        Ok(place)
    }
}

/// Digits and single dots, at most 64. Leading zeros of components, which PS3.5 forbids, occur and harm nobody.
pub(super) fn is_usable_uid(uid: &str) -> bool {
    (1..=LONGEST_UID).contains(&uid.len())
        && uid
            .split('.')
            .all(|component| !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_ct(header: &Header) -> bool {
    header.modality.eq_ignore_ascii_case("CT")
        || header.modality.is_empty() && CT_CLASSES.contains(&header.sop_class_uid.as_str())
}

fn not_ct(header: &Header) -> IgnoredBecause {
    let modality = match text(&header.modality) {
        modality if modality.is_empty() => "without a modality".to_owned(),
        modality => format!("of modality {modality}"),
    };
    IgnoredBecause {
        code: Code::NotCt.as_str().to_owned(),
        sentence: format!("The objects are {modality}, not CT images. They were accepted and dropped."),
    }
}

/// A text as a table can hold it: bounded, and without the characters that PostgreSQL refuses.
fn text(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}
