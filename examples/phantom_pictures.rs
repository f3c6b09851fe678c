//! Makes the pictures of `docs/phantom.md`: `cargo run --release --example phantom_pictures -- FOLDER [SPECIFICATION.json ...]`.
//!
//! Each picture shows six axial slices, a coronal and a sagittal one, in a lung window above and a soft tissue window below. With `--ct SERIES` the same of a real series
//! stands below the phantom.

#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use hilum::dicom::{DecodeOptions, FrameReader, Limits, discover};
use hilum::phantom::{Diseases, Kernel, Position, Specification, chest};
use hilum::series::{Judgement, SeriesLimits, group, judge};
use hilum::volume::{SeriesFrames, Volume, Voxels, load};

/// Pictures of phantoms, on request above a real series.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder for the pictures.
    folder: PathBuf,
    /// Specifications as JSON; those of `docs/phantom.md` if none is given.
    specifications: Vec<PathBuf>,
    /// A folder with one real CT series, shown below each phantom.
    #[arg(long, value_name = "SERIES")]
    ct: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = if arguments.specifications.is_empty() {
        presets()
    } else {
        arguments
            .specifications
            .iter()
            .map(|path| {
                let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("phantom");
                let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
                let specification = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
                Ok((name.to_owned(), specification))
            })
            .collect::<Result<_>>()?
    };
    let real = match &arguments.ct {
        Some(folder) => {
            let volume = series(folder).with_context(|| folder.display().to_string())?;
            Some(montage(&volume, None))
        }
        None => None,
    };
    std::fs::create_dir_all(&arguments.folder)?;
    for (name, specification) in wanted {
        let start = std::time::Instant::now();
        let phantom = chest(&specification)?;
        eprintln!(
            "{name}: {} in {:.1} s",
            phantom.description,
            start.elapsed().as_secs_f64()
        );
        let mut picture = montage(&phantom.volume, Some(&phantom.mask.labels));
        if let Some(real) = &real {
            picture.height += real.height;
            picture.values.extend(&real.values);
        }
        write(&arguments.folder.join(format!("phantom-{name}.png")), &picture)?;
    }
    Ok(())
}

/// The volume of the one series in a folder.
fn series(folder: &Path) -> Result<Volume> {
    let found = group(discover(&[folder.to_owned()], &Limits::default())?.instances);
    let [series] = found.as_slice() else {
        bail!("{} series instead of one", found.len());
    };
    let candidate = match judge(series, &SeriesLimits::default()) {
        Judgement::Usable(candidate) => candidate,
        Judgement::Refused(verdict) => bail!("refused: {verdict:?}"),
    };
    let options = DecodeOptions {
        trust_input: true,
        ..DecodeOptions::default()
    };
    let frames = SeriesFrames {
        reader: &FrameReader::new(options),
        instances: &series.instances,
    };
    Ok(load(candidate.stack(), &series.instances, &frames)?.volume)
}

fn presets() -> Vec<(String, Specification)> {
    let base = Specification {
        spacing_mm: [0.8, 0.8, 2.5],
        matrix: [480, 480],
        ..Specification::default()
    };
    let ill = |seed, diseases| Specification {
        seed,
        diseases,
        ..base.clone()
    };
    [
        ("healthy", ill(1, Diseases::default())),
        (
            "contrast",
            Specification {
                seed: 2,
                contrast: true,
                arms_down: true,
                kernel: Kernel::Smooth,
                noise_hu: 9.0,
                ..base.clone()
            },
        ),
        (
            "ground-glass",
            ill(
                3,
                Diseases {
                    ground_glass: 0.6,
                    ..Diseases::default()
                },
            ),
        ),
        (
            "consolidation",
            ill(
                4,
                Diseases {
                    consolidation: 0.7,
                    ground_glass: 0.2,
                    ..Diseases::default()
                },
            ),
        ),
        (
            "fibrosis",
            Specification {
                kernel: Kernel::Sharp,
                noise_hu: 45.0,
                ..ill(
                    5,
                    Diseases {
                        fibrosis: 0.8,
                        ..Diseases::default()
                    },
                )
            },
        ),
        (
            "emphysema",
            ill(
                6,
                Diseases {
                    emphysema: 0.8,
                    nodules: 0.2,
                    ..Diseases::default()
                },
            ),
        ),
        (
            "effusion",
            ill(
                7,
                Diseases {
                    effusion: 0.7,
                    bowel_gas: 0.8,
                    ..Diseases::default()
                },
            ),
        ),
        (
            "masses-prone",
            Specification {
                position: Position::Prone,
                ..ill(
                    8,
                    Diseases {
                        masses: 0.8,
                        pneumothorax: 0.5,
                        ..Diseases::default()
                    },
                )
            },
        ),
    ]
    .map(|(name, specification)| (name.to_owned(), specification))
    .into()
}

struct Picture {
    width: usize,
    height: usize,
    /// Red, green, blue.
    values: Vec<u8>,
}

/// Windows in HU: centre and width.
const LUNG: (f32, f32) = (-600.0, 1500.0);
const SOFT: (f32, f32) = (40.0, 400.0);

/// All views of a volume in both windows; labels, where they are known, tint the lower half.
fn montage(volume: &Volume, labels: Option<&[u8]>) -> Picture {
    let grid = &volume.grid;
    let [slices, rows, columns] = [grid.origins.len(), grid.rows, grid.columns];
    let step = grid
        .origins
        .get(1)
        .map_or(1.0, |next| (next[2] - grid.origins[0][2]).abs());
    // One tile is 240 pixels wide; planes through the stack keep true proportions.
    let tile = 240;
    let pixel = columns as f64 * grid.spacing_mm[1] / tile as f64;
    let upright = ((slices as f64 * step / pixel) as usize).max(1);
    let height = 2 * tile.max(upright);
    let width = 8 * tile;
    let mut picture = Picture {
        width,
        height,
        values: vec![0; width * height * 3],
    };
    // The head is at the top, whichever way the patient went in.
    let headwards = grid.origins[slices - 1][2] >= grid.origins[0][2];
    let from_the_top = |slice: usize| if headwards { slices - 1 - slice } else { slice };
    let along = |v: usize, n: usize| ((v as f64 + 0.5) * n as f64 / tile as f64) as usize;
    for (line, (window, labels)) in [(LUNG, None), (SOFT, labels)].into_iter().enumerate() {
        let top = line * tile.max(upright);
        for number in 0..6 {
            let slice = from_the_top((slices * (2 * number + 1) / 13).min(slices - 1));
            for v in 0..tile {
                for u in 0..tile {
                    let at = [slice, along(v, rows).min(rows - 1), along(u, columns).min(columns - 1)];
                    picture.put(number * tile + u, top + v, (volume, labels), at, window);
                }
            }
        }
        for v in 0..upright {
            let slice = from_the_top((v * slices / upright).min(slices - 1));
            for u in 0..tile {
                picture.put(
                    6 * tile + u,
                    top + v,
                    (volume, labels),
                    [slice, rows / 2, along(u, columns).min(columns - 1)],
                    window,
                );
                picture.put(
                    7 * tile + u,
                    top + v,
                    (volume, labels),
                    [slice, along(u, rows).min(rows - 1), columns * 3 / 10],
                    window,
                );
            }
        }
    }
    picture
}

impl Picture {
    /// Paints the voxel `at` (slice, row, column) at a place of the picture.
    fn put(
        &mut self,
        x: usize,
        y: usize,
        (volume, labels): (&Volume, Option<&[u8]>),
        at: [usize; 3],
        window: (f32, f32),
    ) {
        let index = (at[0] * volume.grid.rows + at[1]) * volume.grid.columns + at[2];
        let hu = match &volume.voxels {
            Voxels::I16(values) => f32::from(values[index]),
            Voxels::F32(values) => values[index],
        };
        let grey = ((hu - window.0) / window.1 + 0.5).clamp(0.0, 1.0) * 255.0;
        let colour = match labels.map_or(0, |labels| labels[index]) {
            1 => [0.75 * grey + 50.0, 0.85 * grey, 0.75 * grey],
            2 => [0.75 * grey, 0.85 * grey, 0.75 * grey + 60.0],
            _ => [grey; 3],
        };
        let start = (y * self.width + x) * 3;
        for (value, colour) in self.values[start..start + 3].iter_mut().zip(colour) {
            *value = colour as u8;
        }
    }
}

fn write(path: &Path, picture: &Picture) -> Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&picture.values)?;
    Ok(())
}
