//! The figures of several cases in, their mean and spread out: as text, CSV and JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::scores::{CaseScores, Scores};
use super::{EvaluateError, Grids};

/// Mean, range and spread of one figure over the cases that have it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Cases that have it.
    pub cases: usize,
    /// Mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Sample standard deviation (n - 1); 0 for a single case.
    pub sd: f64,
}

/// Cases of which only one side is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unpaired {
    /// References without a prediction, each held against an empty mask (`without_prediction`).
    pub no_prediction: Vec<CaseScores>,
    /// Names of predictions without a reference.
    pub no_reference: Vec<String>,
    /// References without a prediction do not count in the figures.
    pub skip_missing: bool,
}

/// A reference without a prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoPrediction {
    /// Its name.
    pub case: String,
    /// Its volume.
    pub reference_ml: f64,
    /// It is among the cases, with the figures of an empty mask.
    pub counted: bool,
}

/// All cases and their summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Dice of all lung.
    pub dice: Option<Spread>,
    /// HD95 in millimetres.
    pub hd95_mm: Option<Spread>,
    /// Mean surface distance in millimetres.
    pub mean_surface_distance_mm: Option<Spread>,
    /// Volume error in millilitres.
    pub volume_error_ml: Option<Spread>,
    /// Volume error as a share of the reference.
    pub volume_error_relative: Option<Spread>,
    /// Dice of the right lung.
    pub dice_right: Option<Spread>,
    /// Dice of the left lung.
    pub dice_left: Option<Spread>,
    /// The cases that count.
    pub cases: Vec<CaseScores>,
    /// References without a prediction, counted or not.
    pub no_prediction: Vec<NoPrediction>,
    /// Predictions without a reference, which count nowhere.
    pub no_reference: Vec<String>,
}

/// Mean, range and standard deviation of every figure. A reference with lung that has no prediction counts as an empty mask, unless such are skipped: else a prediction that
/// fails would better the mean. One without lung does not count, since nobody knows whether nothing was found or nothing was tried.
#[must_use]
pub fn summarise(mut cases: Vec<CaseScores>, unpaired: Unpaired) -> Summary {
    let mut no_prediction = Vec::new();
    let in_order = unpaired.no_prediction.is_empty();
    // Where no prediction tells right from left, a missing one does not make figures of single lungs.
    let sided = cases.iter().any(|case| case.right.is_some() || case.left.is_some());
    for mut missing in unpaired.no_prediction {
        if !sided {
            (missing.right, missing.left) = (None, None);
        }
        let counted = !unpaired.skip_missing && missing.lungs.reference_ml > 0.0;
        no_prediction.push(NoPrediction {
            case: missing.case.clone(),
            reference_ml: missing.lungs.reference_ml,
            counted,
        });
        cases.extend(counted.then_some(missing));
    }
    if !in_order {
        cases.sort_by(|a, b| a.case.cmp(&b.case));
    }
    let over = |figure: fn(&CaseScores) -> Option<f64>| spread(cases.iter().filter_map(figure));
    Summary {
        dice: over(|case| Some(case.lungs.dice)),
        hd95_mm: over(|case| case.lungs.hd95_mm),
        mean_surface_distance_mm: over(|case| case.lungs.mean_surface_distance_mm),
        volume_error_ml: over(|case| Some(case.lungs.volume_error_ml)),
        volume_error_relative: over(|case| case.lungs.volume_error_relative),
        dice_right: over(|case| case.right.as_ref().map(|scores| scores.dice)),
        dice_left: over(|case| case.left.as_ref().map(|scores| scores.dice)),
        cases,
        no_prediction,
        no_reference: unpaired.no_reference,
    }
}

/// As in JSON.
fn grids(grids: Grids) -> &'static str {
    match grids {
        Grids::Same => "same",
        Grids::SlicesAdded => "slices_added",
        Grids::Resampled => "resampled",
        Grids::NoPrediction => "no_prediction",
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    let count = values.len();
    if count == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    Some(Spread {
        cases: count,
        mean,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        sd: if count > 1 {
            (squares / (count - 1) as f64).sqrt()
        } else {
            0.0
        },
    })
}

impl Spread {
    /// As reference cards write it: `0.95 (0.85-0.99, sd 0.06)`.
    #[must_use]
    pub fn text(&self, digits: usize) -> String {
        let dash = if self.min < 0.0 { " to " } else { "-" };
        format!(
            "{:.digits$} ({:.digits$}{dash}{:.digits$}, sd {:.digits$})",
            self.mean, self.min, self.max, self.sd
        )
    }
}

impl Summary {
    /// References without a prediction that do not count.
    fn not_counted(&self) -> impl Iterator<Item = &str> {
        let missing = self.no_prediction.iter().filter(|missing| !missing.counted);
        missing.map(|missing| missing.case.as_str())
    }

    /// A table for people: a line a case, then the summary, then what is not paired.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self
            .cases
            .iter()
            .map(|case| case.case.as_str())
            .chain(self.not_counted())
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(4);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {:>6}  {:>6}  {:>6}  {:>7}  {:>7}  {:>9}  {:>7}",
            "case", "Dice", "right", "left", "HD95 mm", "mean mm", "error mL", "error %"
        );
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for case in &self.cases {
            let lungs = &case.lungs;
            let side = |scores: &Option<Scores>| optional(scores.as_ref().map(|scores| scores.dice), 3);
            let _ = write!(
                text,
                "{:width$}  {:>6.3}  {:>6}  {:>6}  {:>7}  {:>7}  {:>9.1}  {:>7}",
                case.case,
                lungs.dice,
                side(&case.right),
                side(&case.left),
                optional(lungs.hd95_mm, 2),
                optional(lungs.mean_surface_distance_mm, 2),
                lungs.volume_error_ml,
                optional(lungs.volume_error_relative.map(|share| share * 100.0), 1),
            );
            match case.grids {
                Grids::Resampled => {
                    let _ = write!(text, "  resampled onto the reference's grid");
                    if case.outside_reference_ml > 0.0 {
                        let _ = write!(text, ", {:.1} mL lie outside it", case.outside_reference_ml);
                    }
                }
                Grids::NoPrediction => text.push_str("  no prediction"),
                Grids::Same | Grids::SlicesAdded => {}
            }
            text.push('\n');
        }
        for name in self.not_counted() {
            let _ = writeln!(
                text,
                "{name:width$}  {0:>6}  {0:>6}  {0:>6}  {0:>7}  {0:>7}  {0:>9}  {0:>7}  no prediction",
                "-"
            );
        }
        let mut line = |name: &str, spread: &Option<Spread>, digits: usize| {
            if let Some(spread) = spread {
                let _ = write!(text, "{name} {}", spread.text(digits));
                // A figure that some cases lack (no distance to an empty mask) says so.
                if spread.cases < self.cases.len() {
                    let _ = write!(text, ", {} of {} cases", spread.cases, self.cases.len());
                }
                text.push('\n');
            }
        };
        line("Dice", &self.dice, 2);
        line("Dice, right lung", &self.dice_right, 2);
        line("Dice, left lung", &self.dice_left, 2);
        line("HD95 in mm", &self.hd95_mm, 1);
        line("Mean surface distance in mm", &self.mean_surface_distance_mm, 2);
        line("Volume error in mL", &self.volume_error_ml, 0);
        if !self.no_prediction.is_empty() {
            let counted = self.no_prediction.iter().filter(|missing| missing.counted).count();
            let _ = writeln!(
                text,
                "No prediction for {} of {} references; counted as empty masks (Dice 0): {counted}",
                self.no_prediction.len(),
                self.cases.len() + self.no_prediction.len() - counted
            );
        }
        if !self.no_reference.is_empty() {
            let names = self.no_reference.join(", ");
            let _ = writeln!(text, "Predictions without a reference, not counted: {names}");
        }
        text
    }

    /// One row a case; a reference without a prediction that does not count has a name and no figures.
    ///
    /// # Errors
    /// [`EvaluateError::Write`] when a row cannot be written.
    pub fn csv(&self) -> Result<String, EvaluateError> {
        let failed = |error: &dyn std::fmt::Display| EvaluateError::Write(error.to_string());
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut head = vec!["case".to_owned()];
        for part in ["lungs", "right", "left"] {
            for figure in [
                "dice",
                "hd95_mm",
                "mean_surface_distance_mm",
                "predicted_ml",
                "reference_ml",
                "volume_error_ml",
                "volume_error_relative",
            ] {
                head.push(format!("{part}_{figure}"));
            }
        }
        head.extend(["grids".to_owned(), "outside_reference_ml".to_owned()]);
        writer.write_record(&head).map_err(|error| failed(&error))?;
        for case in &self.cases {
            let mut row = vec![case.case.clone()];
            for part in [Some(&case.lungs), case.right.as_ref(), case.left.as_ref()] {
                let figures = part.map(|s| {
                    [
                        Some(s.dice),
                        s.hd95_mm,
                        s.mean_surface_distance_mm,
                        Some(s.predicted_ml),
                        Some(s.reference_ml),
                        Some(s.volume_error_ml),
                        s.volume_error_relative,
                    ]
                });
                row.extend(
                    figures
                        .unwrap_or([None; 7])
                        .map(|figure| figure.map_or_else(String::new, |figure| figure.to_string())),
                );
            }
            row.extend([grids(case.grids).to_owned(), case.outside_reference_ml.to_string()]);
            writer.write_record(&row).map_err(|error| failed(&error))?;
        }
        for name in self.not_counted() {
            let mut row = vec![name.to_owned()];
            row.resize(head.len(), String::new());
            row[head.len() - 2] = grids(Grids::NoPrediction).to_owned();
            writer.write_record(&row).map_err(|error| failed(&error))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        String::from_utf8(bytes).map_err(|error| failed(&error))
    }

    /// Everything as JSON.
    ///
    /// # Errors
    /// [`EvaluateError::Write`] when it cannot be written.
    pub fn json(&self) -> Result<String, EvaluateError> {
        serde_json::to_string_pretty(self).map_err(|error| EvaluateError::Write(error.to_string()))
    }
}
