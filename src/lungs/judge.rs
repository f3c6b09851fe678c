//! A mask, and what its cleaning, its sides and its figures said, in; the second verdict out: findings that a person should know before trusting the mask.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::clean::CleanReport;
use super::measure::{Density, Measurements};
use super::runs::{Run, Runs};
use super::sides::{Sides, Told};
use super::{LungsError, check_shape, slabs};
use crate::series::{Code, Finding};
use crate::volume::{Grid, Mask, Volume, Voxels};

/// When a mask is remarked upon. Where no source is named the limit is our choice, for the reason given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskLimits {
    /// `lungs_not_found`: less than this in total, in millilitres. A newborn's lungs hold about twice as much; crumbs in a head, a neck or an abdomen hold less.
    pub not_found_below_ml: f64,
    /// `lungs_not_found`: a mask below `smallest_total_ml` of which more than this share lies below -950 HU is air: beside a head, in a foam cushion, in a bowel. Of lungs only
    /// those with the gravest emphysema have as much, and they are large; of 19 real chests and parts of chests none had more than 0.12.
    pub not_found_air_share: f64,
    /// `lungs_not_found`: a mask below `smallest_total_ml` of which more than this share lies above -300 HU is soft tissue, as of a neck. So little lung, and nearly all of it
    /// airless, cannot be told from it; of 19 real chests and parts of chests none had more than 0.07.
    pub not_found_dense_share: f64,
    /// `one_lung_missing`: the smaller lung has less than this share of both. Usually it has 0.45; a collapsed one still some 0.1.
    pub smaller_lung_share: f64,
    /// `implausible_volume`: more than this in total, in millilitres. The upper limit of normal of the total lung capacity of a man of 2.0 m is 10.0 L (7.99 H - 7.08 L, residual
    /// SD 0.70 L: Quanjer et al., Eur Respir J 6 Suppl 16, 1993), the lungs' tissue and blood take about 1 L (Cressoni et al., Crit Care 17:R93, 2013), and
    /// hyperinflation adds to it.
    pub largest_total_ml: f64,
    /// `implausible_volume`: less than this in total, in millilitres, if nothing is cut off: only infants have as little.
    pub smallest_total_ml: f64,
    /// `lungs_cut`: so much lung in the first or the last slice, in square centimetres. The tip of a recess or an apex may well lie in an end slice.
    pub cut_end_cm2: f64,
    /// `lungs_cut`: so much surface of the lungs on the border of the slices or on padding, in square centimetres: more than a few stray voxels.
    pub cut_edge_cm2: f64,
    /// `many_components`: more pieces than this that are not small. Two lungs are one or two; consolidation may part one into a few.
    pub most_components: usize,
    /// `many_components`: pieces below this are not counted, in millilitres. Our choice: a cube of 1 cm, which a look at the picture finds.
    pub component_ml: f64,
    /// `many_components`: or more than this share of the mask was dropped with small pieces. Our choice: about two of the some twenty segments of both lungs, more than crumbs.
    pub dropped_share: f64,
    /// `sides_uncertain`: the confidence of [`Sides`] is below this. Our choice: clearly separate lungs have 1, and where the way of telling them is in doubt it is 0.4 at most.
    pub sides_confidence: f64,
}

impl Default for MaskLimits {
    fn default() -> MaskLimits {
        MaskLimits {
            not_found_below_ml: 75.0,
            not_found_air_share: 0.35,
            not_found_dense_share: 0.8,
            smaller_lung_share: 0.05,
            largest_total_ml: 12_000.0,
            smallest_total_ml: 300.0,
            cut_end_cm2: 5.0,
            cut_edge_cm2: 3.0,
            most_components: 6,
            component_ml: 1.0,
            dropped_share: 0.1,
            sides_confidence: 0.5,
        }
    }
}

/// Judges a cleaned and labelled mask. Without lungs `lungs_not_found` is the only finding.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn judge_mask(
    mask: &Mask,
    volume: &Volume,
    cleaned: &CleanReport,
    sides: &Sides,
    measured: &Measurements,
    limits: &MaskLimits,
) -> Result<Vec<Finding>, LungsError> {
    let voxels = match &volume.voxels {
        Voxels::I16(values) => values.len(),
        Voxels::F32(values) => values.len(),
    };
    check_shape(mask, &volume.grid, Some(voxels))?;
    let total_ml = measured.total.volume_ml;
    if total_ml < limits.not_found_below_ml {
        let sentence = if total_ml == 0.0 && cleaned.found_ml == 0.0 {
            "No lungs were found.".to_string()
        } else {
            format!(
                "No lungs were found: {total_ml:.0} mL of the mask are left, {:.0} mL before small pieces were dropped.",
                cleaned.found_ml
            )
        };
        return Ok(vec![finding(Code::LungsNotFound, sentence)]);
    }
    let density = measured.total.density.as_ref();
    let share = |of: fn(&Density) -> f64| density.map_or(0.0, of);
    let other = [
        (
            share(|d| d.fraction_below_minus_950_hu),
            limits.not_found_air_share,
            "lie below -950 HU, which is air",
        ),
        (
            share(|d| d.fraction_above_minus_300_hu),
            limits.not_found_dense_share,
            "lie above -300 HU, which is soft tissue",
        ),
    ];
    let found = other.into_iter().find(|(share, most, _)| share > most);
    if let Some((share, _, what)) = found.filter(|_| total_ml < limits.smallest_total_ml) {
        let sentence = format!(
            "No lungs were found: of the {total_ml:.0} mL of the mask {:.0} % {what} and no lung.",
            100.0 * share
        );
        return Ok(vec![finding(Code::LungsNotFound, sentence)]);
    }
    let cuts = Cuts::of(mask, volume)?;
    let cut = lungs_cut(&cuts, &volume.grid, limits);
    let mut findings = Vec::new();
    let uncertain = sides_uncertain(sides, limits);
    findings.extend(one_lung_missing(sides, uncertain.is_none(), limits));
    findings.extend(implausible_volume(total_ml, cut.is_some(), limits));
    findings.extend(cut);
    findings.extend(many_components(cleaned, limits));
    findings.extend(uncertain);
    Ok(findings)
}

fn finding(code: Code, sentence: String) -> Finding {
    Finding {
        code,
        sentence,
        concerns: Vec::new(),
    }
}

/// Says which lung is missing where the sides are certain.
fn one_lung_missing(sides: &Sides, certain: bool, limits: &MaskLimits) -> Option<Finding> {
    let total = sides.right_ml + sides.left_ml;
    let (missing, ml) = match sides.right_ml < sides.left_ml {
        _ if !certain => ("other", sides.right_ml.min(sides.left_ml)),
        true => ("right", sides.right_ml),
        false => ("left", sides.left_ml),
    };
    if ml >= limits.smaller_lung_share * total {
        return None;
    }
    let sentence = if ml == 0.0 {
        format!(
            "Only one lung was found, {total:.0} mL: the {missing} one is missing from the mask or from the series."
        )
    } else {
        format!(
            "The {missing} lung has only {ml:.0} mL of {total:.0} mL: most of it is missing from the mask or from the series."
        )
    };
    Some(finding(Code::OneLungMissing, sentence))
}

fn implausible_volume(total_ml: f64, cut: bool, limits: &MaskLimits) -> Option<Finding> {
    let litres = total_ml / 1000.0;
    if total_ml > limits.largest_total_ml {
        let most = limits.largest_total_ml / 1000.0;
        let sentence = format!(
            "The mask has {litres:.1} L: more than lungs can hold (limit {most:.1} L), so it holds something else too."
        );
        return Some(finding(Code::ImplausibleVolume, sentence));
    }
    if total_ml < limits.smallest_total_ml && !cut {
        let least = limits.smallest_total_ml;
        let sentence = format!(
            "The mask has {total_ml:.0} mL, and nothing is cut off: only an infant's lungs are as small (limit {least:.0} mL)."
        );
        return Some(finding(Code::ImplausibleVolume, sentence));
    }
    None
}

fn many_components(cleaned: &CleanReport, limits: &MaskLimits) -> Option<Finding> {
    let counted = cleaned
        .component_ml
        .iter()
        .filter(|&&ml| ml >= limits.component_ml)
        .count();
    let dropped_share = cleaned.dropped_ml / cleaned.found_ml.max(f64::MIN_POSITIVE);
    if counted <= limits.most_components && dropped_share <= limits.dropped_share {
        return None;
    }
    let sentence = format!(
        "The network's mask was in {} separate pieces, {counted} of at least {} mL; {:.0} of {:.0} mL were dropped as too small.",
        cleaned.components, limits.component_ml, cleaned.dropped_ml, cleaned.found_ml
    );
    Some(finding(Code::ManyComponents, sentence))
}

fn sides_uncertain(sides: &Sides, limits: &MaskLimits) -> Option<Finding> {
    if sides.confidence >= limits.sides_confidence {
        return None;
    }
    let why = match sides.told {
        Told::NoLung => return None,
        Told::OneLung => "there is one lung only, and it lies near the middle of the field of view".to_string(),
        Told::Halved => "the mask is one blob without a bridge between two lungs".to_string(),
        Told::Cut | Told::Separate if sides.apart_mm < 40.0 => {
            format!(
                "the middles of the two parts are only {:.0} mm apart from right to left",
                sides.apart_mm
            )
        }
        Told::Cut => format!("the lungs hang together over {:.0} cm2", sides.bridge_cm2),
        Told::Separate => format!(
            "pieces of {:.0} mL could belong to either, or the parts lie one behind the other ({:.0} mm apart from right to left)",
            sides.doubtful_ml, sides.apart_mm
        ),
    };
    Some(finding(
        Code::SidesUncertain,
        format!("Right and left lung cannot be told apart with confidence: {why}."),
    ))
}

/// How much of the lungs' surface lies where the image ends.
struct Cuts {
    /// In the first and in the last slice, in square centimetres.
    ends_cm2: [f64; 2],
    /// On the first row, last row, first column, last column, in square centimetres.
    edges_cm2: [f64; 4],
    /// On padding, in square centimetres.
    padding_cm2: f64,
}

impl Cuts {
    const NONE: Cuts = Cuts {
        ends_cm2: [0.0; 2],
        edges_cm2: [0.0; 4],
        padding_cm2: 0.0,
    };

    fn of(mask: &Mask, volume: &Volume) -> Result<Cuts, LungsError> {
        let runs = Runs::of(mask)?;
        let thickness = slabs::thickness_mm(&volume.grid);
        let per_slice: Vec<Cuts> = thickness
            .par_iter()
            .enumerate()
            .map(|(slice, &thick)| Cuts::of_slice(&runs, volume, slice, thick))
            .collect();
        // In the order of the slices, so that the sums are always the same.
        let mut cuts = Cuts::NONE;
        for slice in per_slice {
            for (sum, end) in cuts.ends_cm2.iter_mut().zip(slice.ends_cm2) {
                *sum += end;
            }
            for (sum, edge) in cuts.edges_cm2.iter_mut().zip(slice.edges_cm2) {
                *sum += edge;
            }
            cuts.padding_cm2 += slice.padding_cm2;
        }
        Ok(cuts)
    }

    fn of_slice(runs: &Runs, volume: &Volume, slice: usize, thickness_mm: f64) -> Cuts {
        let [slices, rows, columns] = runs.shape;
        let [row_mm, column_mm] = volume.grid.spacing_mm;
        let (along_row, along_column) = (thickness_mm * row_mm / 100.0, thickness_mm * column_mm / 100.0);
        let padding = Padding::of(volume, slice);
        let mut cuts = Cuts::NONE;
        let voxels: usize = runs.runs[runs.slice(slice)].iter().map(|run| run.len()).sum();
        for (end, area) in [0, slices - 1].into_iter().zip(&mut cuts.ends_cm2) {
            if slice == end {
                *area = voxels as f64 * row_mm * column_mm / 100.0;
            }
        }
        for row in 0..rows {
            for &run in &runs.runs[runs.row(slice, row)] {
                let (start, end) = (run.start as usize, run.end as usize);
                let across = run.len() as f64 * along_column;
                cuts.edges_cm2[0] += if row == 0 { across } else { 0.0 };
                cuts.edges_cm2[1] += if row + 1 == rows { across } else { 0.0 };
                cuts.edges_cm2[2] += if start == 0 { along_row } else { 0.0 };
                cuts.edges_cm2[3] += if end == columns { along_row } else { 0.0 };
                let Some(padding) = &padding else { continue };
                let beside = [(start > 0).then(|| start - 1), (end < columns).then_some(end)];
                let beside = beside.into_iter().flatten().filter(|&column| padding.at(row, column));
                cuts.padding_cm2 += beside.count() as f64 * along_row;
                let lines = [row.checked_sub(1), (row + 1 < rows).then_some(row + 1)];
                for line in lines.into_iter().flatten() {
                    let others = &runs.runs[runs.row(slice, line)];
                    cuts.padding_cm2 += padding.under(run, others, line) as f64 * along_column;
                }
            }
        }
        cuts
    }
}

/// The padding of one slice.
struct Padding<'a> {
    volume: &'a Volume,
    slice: usize,
    range: (f32, f32),
}

impl Padding<'_> {
    fn of(volume: &Volume, slice: usize) -> Option<Padding<'_>> {
        let range = volume.padding_hu.get(slice).copied().flatten()?;
        Some(Padding { volume, slice, range })
    }

    /// How many columns of a run have padding, and no lung, in a neighbouring row, which has these runs.
    fn under(&self, run: Run, others: &[Run], row: usize) -> usize {
        let first = others.partition_point(|other| other.end <= run.start);
        let mut free = run.start;
        let mut found = 0;
        let covering = others[first..].iter().take_while(|other| other.start < run.end);
        for other in covering.chain(&[Run {
            start: run.end,
            end: run.end,
        }]) {
            let gap = free as usize..other.start.max(free) as usize;
            found += gap.filter(|&column| self.at(row, column)).count();
            free = other.end;
        }
        found
    }

    fn at(&self, row: usize, column: usize) -> bool {
        let grid = &self.volume.grid;
        let at = (self.slice * grid.rows + row) * grid.columns + column;
        let hu = match &self.volume.voxels {
            Voxels::I16(values) => f32::from(values[at]),
            Voxels::F32(values) => values[at],
        };
        (self.range.0..=self.range.1).contains(&hu)
    }
}

fn lungs_cut(cuts: &Cuts, grid: &Grid, limits: &MaskLimits) -> Option<Finding> {
    let slices = grid.origins.len();
    let outwards = |direction: [f64; 3], sign: f64| direction.map(|component| component * sign);
    let mut places = Vec::new();
    let mut concerns = Vec::new();
    for (which, slice) in [(0, 1), (1, slices)] {
        let area = cuts.ends_cm2[which];
        if area >= limits.cut_end_cm2 {
            let end = side_name(outwards(grid.normal, if which == 0 { -1.0 } else { 1.0 }));
            places.push(format!(
                "at the series' {end} end ({area:.0} cm2 of lung in its outermost slice)"
            ));
            concerns.push(format!("slice {slice} of {slices}"));
        }
    }
    let edges = [
        (grid.column_direction, -1.0),
        (grid.column_direction, 1.0),
        (grid.row_direction, -1.0),
        (grid.row_direction, 1.0),
    ];
    for ((direction, sign), area) in edges.into_iter().zip(cuts.edges_cm2) {
        if area >= limits.cut_edge_cm2 {
            let edge = side_name(outwards(direction, sign));
            places.push(format!("at the {edge} edge of the slices ({area:.0} cm2)"));
        }
    }
    if cuts.padding_cm2 >= limits.cut_edge_cm2 {
        places.push(format!(
            "at the border of the field of view ({:.0} cm2)",
            cuts.padding_cm2
        ));
    }
    if places.is_empty() {
        return None;
    }
    let sentence = format!(
        "The lungs are cut off {}: their volumes are too small.",
        places.join(", ")
    );
    Some(Finding {
        code: Code::LungsCut,
        sentence,
        concerns,
    })
}

/// What the patient calls the side to which a direction (LPS) points most.
fn side_name(direction: [f64; 3]) -> &'static str {
    let axis = (0..3).fold(0, |most, axis| {
        if direction[axis].abs() > direction[most].abs() {
            axis
        } else {
            most
        }
    });
    let names = [("left", "right"), ("back", "front"), ("upper", "lower")][axis];
    if direction[axis] > 0.0 { names.0 } else { names.1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::lungs::pieces::tests::{box_of, grid};
    use crate::lungs::{CleanUp, clean, measure, sides};

    const SHAPE: [usize; 3] = [40, 64, 80];

    /// Two lungs of a child in a body that ends in padding to the left (columns from 72 on); 4 mm voxels.
    fn case(lungs: &[[std::ops::Range<usize>; 3]]) -> Vec<Finding> {
        case_of(lungs, -800)
    }

    /// The same, the lungs holding so many HU.
    fn case_of(lungs: &[[std::ops::Range<usize>; 3]], hu: i16) -> Vec<Finding> {
        cleaned(lungs, hu, &CleanUp::OFF)
    }

    /// The same, the mask cleaned first.
    fn cleaned(lungs: &[[std::ops::Range<usize>; 3]], hu: i16, clean_up: &CleanUp) -> Vec<Finding> {
        let mut mask = Mask {
            shape: SHAPE,
            labels: vec![0; SHAPE.iter().product()],
        };
        for bounds in lungs {
            box_of(&mut mask, bounds.clone(), 1);
        }
        let mut values = vec![hu; mask.labels.len()];
        for row in values.chunks_exact_mut(SHAPE[2]) {
            row[72..].fill(-2000);
        }
        let volume = Volume {
            grid: grid(SHAPE, [4.0; 3]),
            voxels: Voxels::I16(values),
            padding_hu: vec![Some((-2000.0, -2000.0)); SHAPE[0]],
        };
        let cleaned = clean(&mut mask, &volume.grid, clean_up).unwrap();
        let told = sides(&mut mask, &volume.grid).unwrap();
        let measured = measure(&mask, &volume).unwrap();
        judge_mask(&mask, &volume, &cleaned, &told, &measured, &MaskLimits::default()).unwrap()
    }

    fn codes(findings: &[Finding]) -> Vec<Code> {
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn two_whole_lungs_leave_nothing_to_say() {
        assert_eq!(case(&[[5..35, 15..50, 10..34], [5..35, 15..50, 46..66]]), vec![]);
    }

    #[test]
    fn an_empty_mask_and_a_crumb_are_no_lungs() {
        assert_eq!(case(&[])[0].sentence, "No lungs were found.");
        let crumb = case(&[[5..10, 15..20, 10..20]]);
        assert_eq!(codes(&crumb), vec![Code::LungsNotFound]);
        assert!(crumb[0].sentence.contains("16 mL"), "{}", crumb[0].sentence);
    }

    #[test]
    fn a_little_soft_tissue_is_no_lung_and_large_airless_lungs_are() {
        let neck = [[0..10, 15..30, 10..20], [0..10, 15..30, 46..56]];
        let tissue = case_of(&neck, 40);
        assert_eq!(codes(&tissue), vec![Code::LungsNotFound]);
        assert!(
            tissue[0]
                .sentence
                .contains("192 mL of the mask 100 % lie above -300 HU"),
            "{}",
            tissue[0].sentence
        );
        let white = [[5..35, 15..50, 10..34], [5..35, 15..50, 46..66]];
        assert_eq!(codes(&case_of(&white, 40)), vec![]);
    }

    #[test]
    fn a_little_air_is_no_lung_and_large_lungs_full_of_air_are() {
        let cushion = [[0..10, 15..30, 10..20], [0..10, 15..30, 46..56]];
        let air = case_of(&cushion, -990);
        assert_eq!(codes(&air), vec![Code::LungsNotFound]);
        assert!(
            air[0].sentence.contains("192 mL of the mask 100 %"),
            "{}",
            air[0].sentence
        );
        assert_eq!(codes(&case(&cushion)), vec![Code::LungsCut]);
        let emphysema = [[5..35, 15..50, 10..34], [5..35, 15..50, 46..66]];
        assert_eq!(codes(&case_of(&emphysema, -990)), vec![]);
    }

    #[test]
    fn lungs_in_the_lowest_slice_are_cut_at_the_lower_end() {
        let findings = case(&[[0..35, 15..50, 10..34], [5..35, 15..50, 46..66]]);
        assert_eq!(codes(&findings), vec![Code::LungsCut]);
        assert_eq!(
            findings[0].sentence,
            "The lungs are cut off at the series' lower end (134 cm2 of lung in its outermost slice): their volumes are too small."
        );
        assert_eq!(findings[0].concerns, vec!["slice 1 of 40"]);
    }

    #[test]
    fn lungs_at_the_border_of_the_slice_or_on_padding_are_cut() {
        let front = case(&[[5..35, 0..50, 10..34], [5..35, 15..50, 46..66]]);
        assert_eq!(codes(&front), vec![Code::LungsCut]);
        assert!(
            front[0].sentence.contains("at the front edge of the slices (115 cm2)"),
            "{}",
            front[0].sentence
        );
        let padding = case(&[[5..35, 15..50, 10..34], [5..35, 15..50, 46..72]]);
        assert_eq!(codes(&padding), vec![Code::LungsCut]);
        assert!(
            padding[0]
                .sentence
                .contains("at the border of the field of view (168 cm2)"),
            "{}",
            padding[0].sentence
        );
        let onto = case(&[[5..35, 15..50, 10..34], [5..35, 15..50, 46..74]]);
        assert_eq!(codes(&onto), vec![Code::LungsCut]);
    }

    #[test]
    fn a_lone_lung_is_named_and_the_other_reported_missing() {
        let findings = case(&[[5..35, 15..50, 46..66]]);
        assert_eq!(codes(&findings), vec![Code::OneLungMissing]);
        assert!(
            findings[0].sentence.contains("the right one is missing"),
            "{}",
            findings[0].sentence
        );
        let middle = case(&[[5..35, 15..50, 30..52]]);
        assert_eq!(codes(&middle), vec![Code::OneLungMissing, Code::SidesUncertain]);
        assert!(
            middle[0].sentence.contains("the other one is missing"),
            "{}",
            middle[0].sentence
        );
    }

    #[test]
    fn what_no_patient_has_is_implausible() {
        let small = case(&[[15..22, 25..35, 20..30], [15..22, 25..35, 45..55]]);
        assert_eq!(codes(&small), vec![Code::ImplausibleVolume]);
        let huge = case(&[[1..39, 1..63, 1..35], [1..39, 1..63, 38..71]]);
        assert_eq!(codes(&huge), vec![]);
        let limits: MaskLimits = serde_json::from_str(r#"{"largest_total_ml": 100.0}"#).unwrap();
        assert!(
            implausible_volume(9_000.0, true, &limits)
                .unwrap()
                .sentence
                .contains("9.0 L")
        );
        assert!(serde_json::from_str::<MaskLimits>(r#"{"largest_total": 100.0}"#).is_err());
    }

    #[test]
    fn many_pieces_are_reported_with_their_number() {
        let mut lungs = vec![[5..35, 15..50, 10..34], [5..35, 15..50, 46..66]];
        lungs.extend((0..6).map(|piece| [5 + 4 * piece..8 + 4 * piece, 55..60, 20..24]));
        let findings = case(&lungs);
        assert_eq!(codes(&findings), vec![Code::ManyComponents]);
        assert!(
            findings[0].sentence.contains("8 separate pieces, 8 of at least 1 mL"),
            "{}",
            findings[0].sentence
        );
    }

    #[test]
    fn much_that_was_dropped_is_reported_however_few_its_pieces() {
        let two_stay = CleanUp {
            keep_components: 2,
            ..CleanUp::OFF
        };
        let with_piece = |columns: std::ops::Range<usize>| {
            let lungs = [
                [5..35, 15..50, 10..34],
                [5..35, 15..50, 46..66],
                [5..35, 53..60, columns],
            ];
            cleaned(&lungs, -800, &two_stay)
        };
        // 15 % of the mask.
        let findings = with_piece(10..49);
        assert_eq!(codes(&findings), vec![Code::ManyComponents]);
        assert!(
            findings[0]
                .sentence
                .contains("3 separate pieces, 3 of at least 1 mL; 524 of 3481 mL were dropped"),
            "{}",
            findings[0].sentence
        );
        // 9.8 %.
        assert_eq!(codes(&with_piece(10..34)), vec![]);
    }

    #[test]
    fn directions_have_the_patients_names() {
        assert_eq!(side_name([0.1, 0.2, -0.9]), "lower");
        assert_eq!(side_name([-0.9, 0.2, 0.1]), "right");
        assert_eq!(side_name([0.0, 1.0, 0.0]), "back");
    }
}
