//! A specification in, a synthetic chest with its true mask out: a volume, or the files of a DICOM series.
//!
//! The demo, the tests and the training live on it, so it must look like a chest. All of it is drawn from smooth functions, tubes and noise; no patient went in.
//! The same specification gives the same voxels and the same bytes.

mod anatomy;
mod disease;
mod fields;
mod noise;
mod render;
mod series;
mod shapes;
mod skeleton;
mod specification;
mod tubes;
mod vessels;

pub use series::dicom_series;
pub use specification::{Diseases, Flavour, Kernel, Position, Specification, TransferSyntax};

use std::ops::RangeInclusive;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::volume::{Grid, Mask, Volume, Voxels};

/// Why a phantom could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    /// A setting has no sense.
    #[error("the phantom's {setting} cannot be {value}: {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The DICOM writer failed.
    #[error(transparent)]
    Write(#[from] crate::dicom::write_ct::WriteError),
}

/// A synthetic chest.
#[derive(Clone, Debug, PartialEq)]
pub struct Phantom {
    /// HU.
    pub volume: Volume,
    /// The true lungs, 1 right and 2 left: lung with its vessels and all that ails it, without trachea, main bronchi, pleural fluid and pleural air.
    pub mask: Mask,
    /// A sentence on what it is.
    pub description: String,
}

/// Draws a chest.
///
/// # Errors
/// [`PhantomError::Setting`] when a setting is outside its bounds (`Specification` tells them) or the volume would exceed 2^30 voxels.
pub fn chest(specification: &Specification) -> Result<Phantom, PhantomError> {
    check(specification)?;
    let mut rng = ChaCha8Rng::seed_from_u64(specification.seed);
    let anatomy = anatomy::Anatomy::new(specification, &mut rng);
    let shift = [
        rng.random_range(-12.0..12.0),
        rng.random_range(-160.0..-140.0),
        rng.random_range(-900.0..-100.0_f64).round(),
    ];
    let grid = grid(specification, &anatomy, shift)?;
    let illness = disease::Illness::new(
        &specification.diseases,
        &anatomy,
        specification.position == Position::Prone,
        &mut rng,
    );
    let mut segments = vessels::vessels(&anatomy, &mut rng);
    segments.extend(skeleton::bones(&anatomy, &mut rng));
    for segment in &mut segments {
        segment.from = render::Scene::unwarped(&anatomy, segment.from);
        segment.to = render::Scene::unwarped(&anatomy, segment.to);
    }
    let lung_hu = -805.0 - 112.0 * anatomy.breath + rng.random_range(-18.0..18.0);
    let roll = rng.random_range(-0.06..0.06);
    let scene = render::Scene {
        specification,
        grid: &grid,
        anatomy: &anatomy,
        illness: &illness,
        segments,
        shift,
        roll,
        lung_hu,
    };
    let (hu, labels) = scene.render();
    let shape = [grid.origins.len(), grid.rows, grid.columns];
    let padding = specification.outside_circle_hu.map(|hu| (f32::from(hu), f32::from(hu)));
    Ok(Phantom {
        volume: Volume {
            padding_hu: vec![padding; shape[0]],
            grid,
            voxels: Voxels::I16(hu),
        },
        mask: Mask { shape, labels },
        description: description(specification, shape),
    })
}

/// What is drawn from relies on these bounds and does not look again.
fn check(specification: &Specification) -> Result<(), PhantomError> {
    let within = |setting, values: &[f64], bounds: RangeInclusive<f64>, expected| {
        // A value that is no number lies within no bounds.
        match values.iter().find(|value| !bounds.contains(value)) {
            None => Ok(()),
            Some(value) => Err(PhantomError::Setting {
                setting,
                value: value.to_string(),
                expected,
            }),
        }
    };
    if specification.matrix.iter().any(|n| !(8..=4096).contains(n)) {
        return Err(PhantomError::Setting {
            setting: "matrix",
            value: format!("{:?}", specification.matrix),
            expected: "8 to 4096 rows and columns",
        });
    }
    within("spacing", &specification.spacing_mm, 0.1..=50.0, "0.1 to 50 mm")?;
    let thickness = specification.thickness_mm.as_slice();
    within("slice thickness", thickness, 0.1..=50.0, "0.1 to 50 mm")?;
    within("tilt", &[specification.tilt_degrees], -40.0..=40.0, "-40 to 40 degrees")?;
    within(
        "centre",
        &specification.centre_mm,
        -2000.0..=2000.0,
        "within 2 m of the lungs",
    )?;
    within("size", &[specification.size], 0.3..=1.6, "0.3 to 1.6")?;
    within("fat", specification.fat_mm.as_slice(), 0.0..=100.0, "0 to 100 mm")?;
    within("inspiration", specification.inspiration.as_slice(), 0.0..=1.0, "0 to 1")?;
    within("noise", &[specification.noise_hu], 0.0..=200.0, "0 to 200 HU")?;
    for (disease, amount) in specification.diseases.named() {
        within(disease, &[amount], 0.0..=1.0, "0 to 1")?;
    }
    Ok(())
}

fn grid(specification: &Specification, anatomy: &anatomy::Anatomy, shift: [f64; 3]) -> Result<Grid, PhantomError> {
    let [between_rows, between_columns, step] = specification.spacing_mm;
    let [rows, columns] = specification.matrix;
    let (low, high) = anatomy.lung_range();
    let tilt = specification.tilt_degrees.to_radians();
    let cover = f64::from(high - low) + 36.0 + 260.0 * tilt.sin().abs();
    let slices = specification.slices.unwrap_or_else(|| (cover / step).ceil() as usize);
    if slices == 0 || slices.saturating_mul(rows).saturating_mul(columns) > 1 << 30 {
        return Err(PhantomError::Setting {
            setting: "slices",
            value: slices.to_string(),
            expected: "at least one, and at most 2^30 voxels in all",
        });
    }
    let turned = if specification.position == Position::Prone {
        -1.0
    } else {
        1.0
    };
    let row_direction = [turned, 0.0, 0.0];
    let column_direction = [0.0, turned * tilt.cos(), turned * tilt.sin()];
    let normal = [0.0, -tilt.sin(), tilt.cos()];
    let middle = [
        shift[0] + specification.centre_mm[0],
        shift[1] + 6.0 + specification.centre_mm[1],
        shift[2] + f64::from(low + high) * 0.5 + specification.centre_mm[2],
    ];
    let origins = (0..slices)
        .map(|slice| {
            let mut origin = [0.0; 3];
            for axis in 0..3 {
                let along = (columns as f64 - 1.0) * 0.5 * between_columns * row_direction[axis];
                let down = (rows as f64 - 1.0) * 0.5 * between_rows * column_direction[axis];
                origin[axis] = rounded(middle[axis] - along - down);
            }
            origin[2] = rounded(origin[2] + (slice as f64 - (slices as f64 - 1.0) * 0.5) * step);
            origin
        })
        .collect();
    Ok(Grid {
        rows,
        columns,
        origins,
        row_direction,
        column_direction,
        normal,
        spacing_mm: [between_rows, between_columns],
    })
}

/// To a millionth of a millimetre, so that a decimal string of DICOM holds it.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn description(specification: &Specification, shape: [usize; 3]) -> String {
    let found: Vec<_> = specification
        .diseases
        .named()
        .into_iter()
        .filter(|(name, amount)| *amount > 0.0 && *name != "bowel gas")
        .map(|(name, amount)| format!("{name} {amount:.1}"))
        .collect();
    let health = if found.is_empty() {
        "healthy lungs".to_owned()
    } else {
        found.join(", ")
    };
    format!(
        "Synthetic chest, seed {}, {} x {} x {} voxels, {health}",
        specification.seed, shape[2], shape[1], shape[0]
    )
}
