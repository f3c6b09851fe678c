//! A stack and a reader of its frames in, a volume in Hounsfield units out: decoded on all cores, slice by slice into the volume's memory.
//!
//! HU is `stored * slope + intercept` in f64 with each slice's own rescale. Whether every value is whole and fits 16 bits is known only when all are read, so
//! 16 bits are tried first; the first value that does not fit ends the attempt, its memory is given back, and the slices are read again as f32. There are
//! never two copies.

use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

use super::resample::Sample;
use super::values::NotHu;
use super::{Grid, ValueSummary, Volume, Voxels};
use crate::dicom::{Instance, Rescale};
use crate::series::{Slice, Stack};

/// Reads the stored values of slices; called from many threads.
pub trait StoredFrames: Sync {
    /// Why a frame could not be read.
    type Error: std::error::Error + Send + 'static;

    /// The stored values of a slice, row by row, into `out`, which is cleared first.
    ///
    /// # Errors
    /// The frame cannot be read or decoded.
    fn read(&self, slice: &Slice, out: &mut Vec<i32>) -> Result<(), Self::Error>;

    /// The fast way where pixels are plain 16 bit: stored values plus `add` straight into `out` (rows x columns). `false` says that this way is not possible
    /// for this slice, or that a value did not fit; `out` is then worthless.
    ///
    /// # Errors
    /// The frame cannot be read.
    fn read_plus(&self, slice: &Slice, add: i32, out: &mut [i16]) -> Result<bool, Self::Error>;
}

/// A volume, and what its values look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The volume.
    pub volume: Volume,
    /// Whether they can be HU at all.
    pub values: ValueSummary,
    /// Slices (their index in the stack) that a rescale of their own moves to where their values cannot be HU.
    pub misplaced: Vec<(usize, NotHu)>,
}

/// An intercept further than this from the middle one of the series, in HU, makes a slice be judged by itself: scanners move a slice by far less, a forgotten or doubled
/// intercept by 1000.
const FAR_INTERCEPT_HU: f64 = 200.0;

/// Why a volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// Slices could not be read: all of them, with their index in the stack.
    #[error("{} of the slices cannot be read; slice {}: {}", .0.len(), .0[0].0 + 1, .0[0].1)]
    Slices(Vec<(usize, SliceError<E>)>),
    /// The volume has more voxels than memory has addresses, or a slice names an instance that is not there.
    #[error("the stack does not describe a volume")]
    Stack,
}

/// Why a slice could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SliceError<E: std::error::Error + 'static> {
    /// The reader says why.
    #[error(transparent)]
    Read(E),
    /// Not one stored value a voxel.
    #[error("{got} pixels instead of {wanted}")]
    Length {
        /// Pixels that came.
        got: usize,
        /// Pixels of the matrix.
        wanted: usize,
    },
}

/// A volume from a stack, its slices read on all cores. `instances` are those of the stack's series. The caller has judged the size: memory of two bytes a
/// voxel (four where values are not whole) is taken, and one decoded slice a core.
///
/// Whole values that fit are held exactly, others are rounded once to f32.
///
/// # Errors
/// Every slice that failed, not only the first.
pub fn load<F: StoredFrames>(stack: &Stack, instances: &[Instance], frames: &F) -> Result<Loaded, LoadError<F::Error>> {
    let area = stack
        .rows
        .checked_mul(stack.columns)
        .filter(|area| *area > 0)
        .ok_or(LoadError::Stack)?;
    let voxels = area
        .checked_mul(stack.slices.len())
        .filter(|n| *n > 0 && *n <= isize::MAX as usize / 4)
        .ok_or(LoadError::Stack)?;
    let padding_hu = stack
        .slices
        .iter()
        .map(|slice| {
            Some(padding(
                slice.rescale,
                instances.get(slice.instance)?.header.pixels.padding,
            ))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(LoadError::Stack)?;
    let (voxels, each) = match read_all::<i16, F>(stack, frames, &padding_hu, voxels)? {
        Some((held, each)) => (Voxels::I16(held), each),
        // Nothing is refused by f32, so there is a second answer; an empty one cannot come.
        None => match read_all::<f32, F>(stack, frames, &padding_hu, voxels)? {
            Some((held, each)) => (Voxels::F32(held), each),
            None => return Err(LoadError::Stack),
        },
    };
    Ok(Loaded {
        volume: Volume {
            grid: Grid::from_stack(stack),
            voxels,
            padding_hu,
        },
        values: each.iter().copied().fold(ValueSummary::EMPTY, ValueSummary::join),
        misplaced: misplaced(&stack.slices, &each),
    })
}

/// Slices whose intercept lies far from the others' and whose own values cannot be HU. Slices are not judged singly otherwise: an end slice may hold next to nothing.
fn misplaced(slices: &[Slice], each: &[ValueSummary]) -> Vec<(usize, NotHu)> {
    let mut intercepts: Vec<f64> = slices.iter().map(|slice| slice.rescale.intercept).collect();
    let middle = intercepts.len() / 2;
    let middle = *intercepts.select_nth_unstable_by(middle, f64::total_cmp).1;
    let far = |slice: &Slice| (slice.rescale.intercept - middle).abs() > FAR_INTERCEPT_HU;
    slices
        .iter()
        .zip(each)
        .enumerate()
        .filter(|(_, (slice, _))| far(slice))
        .filter_map(|(index, (_, values))| Some((index, values.not_hu()?)))
        .filter(|(_, why)| !matches!(why, NotHu::Nothing))
        .collect()
}

/// The HU that stand for padding under a slice's rescale.
fn padding(rescale: Rescale, stored: Option<(i32, i32)>) -> Option<(f32, f32)> {
    let (first, last) = stored?;
    let (a, b) = (rescale.hu(first) as f32, rescale.hu(last) as f32);
    Some((a.min(b), a.max(b)))
}

/// What a voxel is held as.
trait Held: Sample + Default {
    /// Reads one slice by the fast way; `false` if that is not possible.
    fn fast<F: StoredFrames>(frames: &F, slice: &Slice, out: &mut [Self]) -> Result<bool, F::Error>;
    /// Converts stored values; `false` if one is not exact in this type.
    fn convert(rescale: Rescale, stored: &[i32], out: &mut [Self]) -> bool;
}

impl Held for i16 {
    fn fast<F: StoredFrames>(frames: &F, slice: &Slice, out: &mut [i16]) -> Result<bool, F::Error> {
        let intercept = slice.rescale.intercept;
        // Beyond this no stored value of 32 bits leads back to 16 bits without care.
        let whole = intercept.abs() <= 1e6 && intercept == intercept.trunc();
        if slice.rescale.slope == 1.0 && whole {
            frames.read_plus(slice, intercept as i32, out)
        } else {
            Ok(false)
        }
    }

    fn convert(rescale: Rescale, stored: &[i32], out: &mut [i16]) -> bool {
        let mut exact = true;
        for (value, stored) in out.iter_mut().zip(stored) {
            let hu = rescale.hu(*stored);
            *value = hu as i16;
            exact &= f64::from(*value) == hu;
        }
        exact
    }
}

impl Held for f32 {
    fn fast<F: StoredFrames>(_: &F, _: &Slice, _: &mut [f32]) -> Result<bool, F::Error> {
        Ok(false)
    }

    fn convert(rescale: Rescale, stored: &[i32], out: &mut [f32]) -> bool {
        for (value, stored) in out.iter_mut().zip(stored) {
            *value = rescale.hu(*stored) as f32;
        }
        true
    }
}

/// What came of one slice.
enum Read<E: std::error::Error + 'static> {
    Done(ValueSummary),
    /// A value is not exact in this type, here or in another slice.
    NotExact,
    Failed(SliceError<E>),
}

/// All slices, and what the values of each look like, or `None` where a value is not exact in this type.
#[allow(clippy::type_complexity)]
fn read_all<T: Held, F: StoredFrames>(
    stack: &Stack,
    frames: &F,
    padding_hu: &[Option<(f32, f32)>],
    voxels: usize,
) -> Result<Option<(Vec<T>, Vec<ValueSummary>)>, LoadError<F::Error>> {
    let area = stack.rows * stack.columns;
    let mut held = vec![T::default(); voxels];
    let inexact = AtomicBool::new(false);
    let read = |stored: &mut Vec<i32>, out: &mut [T], slice: &Slice, padding: Option<(f32, f32)>| {
        if inexact.load(Ordering::Relaxed) {
            return Read::NotExact;
        }
        match T::fast(frames, slice, out) {
            Ok(true) => return Read::Done(ValueSummary::of(out, padding)),
            Ok(false) => {}
            Err(error) => return Read::Failed(SliceError::Read(error)),
        }
        if let Err(error) = frames.read(slice, stored) {
            return Read::Failed(SliceError::Read(error));
        }
        if stored.len() != area {
            return Read::Failed(SliceError::Length {
                got: stored.len(),
                wanted: area,
            });
        }
        if T::convert(slice.rescale, stored, out) {
            Read::Done(ValueSummary::of(out, padding))
        } else {
            inexact.store(true, Ordering::Relaxed);
            Read::NotExact
        }
    };
    let results: Vec<Read<F::Error>> = held
        .par_chunks_exact_mut(area)
        .zip(&stack.slices)
        .zip(padding_hu)
        .map_init(Vec::new, |stored, ((out, slice), padding)| {
            read(stored, out, slice, *padding)
        })
        .collect();
    if inexact.into_inner() {
        return Ok(None);
    }
    let mut failed = Vec::new();
    let mut values = Vec::with_capacity(results.len());
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Read::Done(summary) => values.push(summary),
            Read::Failed(error) => failed.push((index, error)),
            Read::NotExact => return Ok(None),
        }
    }
    if failed.is_empty() {
        Ok(Some((held, values)))
    } else {
        Err(LoadError::Slices(failed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::dicom::{Header, PixelFormat, Source};
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    /// Stored values in memory, a slice each.
    struct Frames {
        stored: Vec<Vec<i32>>,
        /// Whether the fast way is open.
        fast: bool,
        fast_reads: AtomicUsize,
        slow_reads: AtomicUsize,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("slice {0} is broken")]
    struct Broken(usize);

    impl StoredFrames for Frames {
        type Error = Broken;

        fn read(&self, slice: &Slice, out: &mut Vec<i32>) -> Result<(), Broken> {
            self.slow_reads.fetch_add(1, Ordering::Relaxed);
            out.clear();
            out.extend(&self.stored[slice.frame]);
            if out.is_empty() {
                Err(Broken(slice.frame))
            } else {
                Ok(())
            }
        }

        fn read_plus(&self, slice: &Slice, add: i32, out: &mut [i16]) -> Result<bool, Broken> {
            let stored = &self.stored[slice.frame];
            if !self.fast || stored.len() != out.len() {
                return Ok(false);
            }
            self.fast_reads.fetch_add(1, Ordering::Relaxed);
            for (out, stored) in out.iter_mut().zip(stored) {
                let Ok(hu) = i16::try_from(stored + add) else {
                    return Ok(false);
                };
                *out = hu;
            }
            Ok(true)
        }
    }

    fn frames(stored: &[&[i32]]) -> Frames {
        Frames {
            stored: stored.iter().map(|slice| slice.to_vec()).collect(),
            fast: false,
            fast_reads: AtomicUsize::new(0),
            slow_reads: AtomicUsize::new(0),
        }
    }

    fn stack(rescales: &[(f64, f64)]) -> Stack {
        let slice = |(k, (slope, intercept)): (usize, &(f64, f64))| Slice {
            instance: 0,
            frame: k,
            origin: [0.0, 0.0, k as f64],
            position_mm: k as f64,
            rescale: Rescale {
                slope: *slope,
                intercept: *intercept,
            },
        };
        Stack {
            slices: rescales.iter().enumerate().map(slice).collect(),
            rows: 2,
            columns: 2,
            pixel_spacing_mm: [1.0, 1.0],
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
        }
    }

    fn instances(padding: Option<(i32, i32)>) -> Vec<Instance> {
        let source = Source {
            path: Path::new("series").into(),
            offset: 0,
            length: 0,
        };
        let pixels = PixelFormat {
            padding,
            ..PixelFormat::default()
        };
        vec![Instance {
            source,
            header: Header {
                pixels,
                ..Header::default()
            },
        }]
    }

    fn voxels(stack: &Stack, frames: &Frames) -> Voxels {
        load(stack, &instances(None), frames).unwrap().volume.voxels
    }

    #[test]
    fn whole_values_that_fit_are_held_exactly_whatever_the_rescale() {
        // The last slice: unsigned 16 bits with an intercept far below.
        let stack = stack(&[(1.0, -1024.0), (0.5, -1000.0), (1.0, -8192.0), (-1.0, 7.0)]);
        let frames = frames(&[
            &[0, 24, 1024, 4095],
            &[0, 2, 4, 3000],
            &[0, 7192, 8192, 40_959],
            &[0, 1, 2, 32_775],
        ]);
        let wanted = vec![
            -1024, -1000, 0, 3071, -1000, -999, -998, 500, -8192, -1000, 0, 32_767, 7, 6, 5, -32_768,
        ];
        assert_eq!(voxels(&stack, &frames), Voxels::I16(wanted));
    }

    #[test]
    fn one_value_that_is_not_whole_or_does_not_fit_makes_the_volume_f32() {
        let fraction = voxels(
            &stack(&[(1.0, 0.0), (0.1, -3.3)]),
            &frames(&[&[1, 2, 3, 4], &[1, 2, 3, 4]]),
        );
        let wanted = [1.0, 2.0, 3.0, 4.0]
            .into_iter()
            .chain((1..5).map(|s| (f64::from(s) * 0.1 - 3.3) as f32));
        assert_eq!(fraction, Voxels::F32(wanted.collect()));
        let wide = voxels(&stack(&[(1.0, -1024.0)]), &frames(&[&[0, 1024, 65_535, 33_792]]));
        assert_eq!(wide, Voxels::F32(vec![-1024.0, 0.0, 64_511.0, 32_768.0]));
    }

    #[test]
    fn the_fast_way_is_taken_where_it_is_open_and_gives_the_same() {
        let stack = stack(&[(1.0, -1024.0), (1.0, 0.0), (2.0, -1024.0)]);
        let mut frames = frames(&[&[0, 24, 1024, 4095], &[-1000, 0, 1, 2], &[0, 1, 2, 3]]);
        let slow = voxels(&stack, &frames);
        frames.fast = true;
        let reads = frames.slow_reads.swap(0, Ordering::Relaxed);
        assert_eq!((reads, voxels(&stack, &frames)), (3, slow));
        assert_eq!((frames.fast_reads.into_inner(), frames.slow_reads.into_inner()), (2, 1));
    }

    #[test]
    fn a_value_that_the_fast_way_cannot_hold_makes_the_volume_f32() {
        let mut frames = frames(&[&[0, 24, 1024, 65_535]]);
        frames.fast = true;
        assert_eq!(
            voxels(&stack(&[(1.0, 0.0)]), &frames),
            Voxels::F32(vec![0.0, 24.0, 1024.0, 65_535.0])
        );
    }

    #[test]
    fn padding_is_known_in_hu_and_kept_as_it_was_stored() {
        let stack = stack(&[(1.0, -1024.0), (-2.0, 10.0)]);
        let frames = frames(&[&[-2000, 24, 1024, 1100], &[-2000, -1990, 0, 5]]);
        let loaded = load(&stack, &instances(Some((-2000, -1990))), &frames).unwrap();
        assert_eq!(
            loaded.volume.voxels,
            Voxels::I16(vec![-3024, -1000, 0, 76, 4010, 3990, 10, 0])
        );
        assert_eq!(
            loaded.volume.padding_hu,
            [Some((-3024.0, -3014.0)), Some((3990.0, 4010.0))]
        );
        assert_eq!((loaded.values.lowest_hu, loaded.values.highest_hu), (-1000.0, 76.0));
    }

    #[test]
    fn a_slice_that_its_own_intercept_moves_out_of_hounsfield_units_is_told() {
        let chest = [24, 174, 924, 1064];
        let told = |rescales: &[(f64, f64)]| {
            let stored = vec![&chest[..]; rescales.len()];
            load(&stack(rescales), &instances(None), &frames(&stored))
                .unwrap()
                .misplaced
        };
        // Of four voxels every thirteenth is looked at: the first, which is air.
        let right = (1.0, -1024.0);
        assert_eq!(
            told(&[right, (1.0, -1000.0), right, right]),
            [],
            "a scanner moves a slice by a little"
        );
        let forgotten = told(&[right, right, (1.0, 0.0), right]);
        assert!(
            matches!(forgotten[..], [(2, NotHu::NoAirOrFat { .. })]),
            "{forgotten:?}"
        );
        assert_eq!(
            told(&[(1.0, 0.0); 3]),
            [],
            "where all are alike the volume is judged as a whole"
        );
    }

    #[test]
    fn every_slice_that_failed_is_reported() {
        let stack = stack(&[(1.0, 0.0); 5]);
        let frames = frames(&[&[1, 2, 3, 4], &[], &[1, 2, 3, 4], &[1, 2, 3], &[]]);
        let Err(LoadError::Slices(failed)) = load(&stack, &instances(None), &frames) else {
            panic!("it loaded")
        };
        assert_eq!(failed.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3, 4]);
        assert!(matches!(failed[0].1, SliceError::Read(Broken(1))));
        assert!(matches!(failed[1].1, SliceError::Length { got: 3, wanted: 4 }));
    }

    #[test]
    fn a_stack_that_describes_no_volume_is_an_error() {
        let mut stack = stack(&[(1.0, 0.0)]);
        let frames = frames(&[&[1, 2, 3, 4]]);
        stack.slices[0].instance = 7;
        assert!(matches!(load(&stack, &instances(None), &frames), Err(LoadError::Stack)));
        stack.slices[0].instance = 0;
        stack.rows = usize::MAX / 2;
        assert!(matches!(load(&stack, &instances(None), &frames), Err(LoadError::Stack)));
    }
}
