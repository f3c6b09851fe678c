//! An image and a network in, the foreground probability on the same grid out: MONAI's `sliding_window_inference`, then the activation.
//!
//! Windows are filled and answers are summed up on all cores while the network works on the next ones. The order of the windows and of the sums is MONAI's, so
//! that the result does not depend on the number of threads, nor on how many windows run at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::blend::{Sums, fill, is_empty};
use super::error::ModelError;
use super::manifest::{Activation, Axes, Blend};
use super::positions::{Axis, Place, places};
use crate::volume::Image;

/// Batches given to the network before its first answer is taken: one runs, one waits.
const IN_FLIGHT: usize = 2;

/// Tells a long computation to stop. Clones share one flag.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks to stop; there is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once somebody asked to stop.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How windows are moved over an image, and what a network's answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowOptions {
    /// Voxels of a window along x, y, z.
    pub roi: [usize; 3],
    /// Part of a window that the next one covers again, 0 to below 1.
    pub overlap: f64,
    /// How overlapping windows are weighted.
    pub blend: Blend,
    /// Order of the spatial axes in the network's tensors.
    pub axes: Axes,
    /// Channels of the answer.
    pub channels: usize,
    /// From blended raw values to a probability.
    pub activation: Activation,
    /// The channel that means lung.
    pub foreground_channel: usize,
    /// A window all of whose voxels are below this value is not run. It counts, with its weight, as certain background: a logit of -16 (of the foreground channel, the
    /// others being 0) or, without activation, 0. `None` runs every window.
    pub skip_below: Option<f32>,
}

/// A batch of windows on its way to the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Windows {
    /// `[window][..roi]`, spatial axes in the network's order.
    pub values: Vec<f32>,
    /// Number of windows.
    pub count: usize,
}

/// A network's raw answer to a batch of windows.
pub struct Prediction {
    /// The windows, handed back so that their memory is used again.
    pub windows: Windows,
    /// `[window][channel][..roi]`, spatial axes in the network's order.
    pub values: Box<dyn AsRef<[f32]> + Send>,
}

/// A network. Answers come in the order in which windows were submitted.
pub trait Predictor {
    /// Most windows in one batch, at least 1; it may fall while batches run.
    fn batch(&self) -> usize;

    /// Gives the network a batch.
    ///
    /// # Errors
    /// The network is gone.
    fn submit(&mut self, windows: Windows) -> Result<(), ModelError>;

    /// Waits for the answer to the oldest batch that was submitted and not yet received.
    ///
    /// # Errors
    /// The network failed, or `cancel` was set while waiting.
    fn receive(&mut self, cancel: &CancelFlag) -> Result<Prediction, ModelError>;

    /// Stops what runs and forgets what was submitted.
    fn abandon(&mut self);
}

/// What came of sliding.
#[derive(Clone, Debug, PartialEq)]
pub struct Slid {
    /// The foreground probability on the image's grid (the blended raw value where the network needs no activation).
    pub probability: Image,
    /// Windows that the network saw.
    pub windows_run: usize,
    /// Windows without body, which it did not see.
    pub windows_skipped: usize,
}

/// Moves windows over an image and blends what the network makes of them. `progress` is told the windows done and their total, `cancel` ends it within a window.
///
/// Along an axis shorter than a window the image is padded with zeros (of the scaled image), half of them, rounded down, before. Raw values are blended, then activated.
/// Beside the image this takes its size once more for every channel that is summed up (one for sigmoid and for softmax of two), and once for gaussian weights.
///
/// # Errors
/// The network fails or answers something of another size or not finite, the image does not hold what its grid says, or `cancel` was set.
pub fn slide(
    image: &Image,
    options: &WindowOptions,
    predictor: &mut dyn Predictor,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelFlag,
) -> Result<Slid, ModelError> {
    let result = Slide::new(image, options)?.run(predictor, progress, cancel);
    if result.is_err() {
        predictor.abandon();
    }
    result
}

/// A sliding in progress.
struct Slide<'a> {
    image: &'a Image,
    options: &'a WindowOptions,
    axes: [Axis; 3],
    sums: Sums<'a>,
    /// Windows not yet summed up, in order, and whether the network was asked.
    waiting: VecDeque<(Place, bool)>,
    /// Memory for batches.
    spare: Vec<Vec<f32>>,
    run: usize,
    skipped: usize,
}

impl<'a> Slide<'a> {
    fn new(image: &'a Image, options: &'a WindowOptions) -> Result<Slide<'a>, ModelError> {
        let (shape, values) = (image.grid.shape, image.values.len());
        let voxels = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if voxels != Some(values) || values == 0 {
            return Err(ModelError::ImageSize { shape, values });
        }
        let [x, y, z] = options.roi;
        let axis = |index: usize, roi: usize| Axis::new(shape[index], roi, options.overlap);
        let axes = [axis(0, z), axis(1, y), axis(2, x)];
        let sums = Sums::new(options, shape);
        Ok(Slide {
            image,
            options,
            axes,
            sums,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            run: 0,
            skipped: 0,
        })
    }

    fn run(
        mut self,
        predictor: &mut dyn Predictor,
        progress: &mut dyn FnMut(usize, usize),
        cancel: &CancelFlag,
    ) -> Result<Slid, ModelError> {
        let places = places(&self.axes);
        let total = places.len();
        let mut todo = places.into_iter();
        let mut in_flight = 0;
        progress(0, total);
        loop {
            if cancel.is_canceled() {
                return Err(ModelError::Canceled);
            }
            while in_flight < IN_FLIGHT
                && let Some(windows) = self.next_batch(&mut todo, predictor.batch().max(1))
            {
                predictor.submit(windows)?;
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            let prediction = predictor.receive(cancel)?;
            in_flight -= 1;
            self.sum_up(prediction)?;
            progress(total - todo.len() - self.waiting.len(), total);
        }
        self.sum_up_skipped();
        progress(total, total);
        let (values, odd) = self.sums.finish(&self.axes);
        if odd > 0 {
            return Err(ModelError::NotFinite(odd));
        }
        let probability = Image {
            grid: self.image.grid.clone(),
            values,
        };
        Ok(Slid {
            probability,
            windows_run: self.run,
            windows_skipped: self.skipped,
        })
    }

    /// The next windows that have to be run; those without body are passed over.
    fn next_batch(&mut self, todo: &mut impl Iterator<Item = Place>, most: usize) -> Option<Windows> {
        let (shape, voxels) = (self.image.grid.shape, self.options.roi.iter().product::<usize>());
        let mut windows = Windows {
            values: self.spare.pop().unwrap_or_default(),
            count: 0,
        };
        while windows.count < most {
            let Some(place) = todo.next() else { break };
            let empty = self
                .options
                .skip_below
                .is_some_and(|limit| is_empty(&self.image.values, shape, &place, limit));
            self.waiting.push_back((place, !empty));
            if empty {
                self.skipped += 1;
                continue;
            }
            let end = (windows.count + 1) * voxels;
            if windows.values.len() < end {
                windows.values.resize(end, 0.0);
            }
            let window = &mut windows.values[end - voxels..end];
            fill(
                window,
                &self.image.values,
                shape,
                &place,
                self.options.roi,
                self.options.axes,
            );
            windows.count += 1;
        }
        windows.values.truncate(windows.count * voxels);
        self.run += windows.count;
        (windows.count > 0).then_some(windows)
    }

    /// Adds the answer to the oldest batch, and the windows before and between its windows that were not run.
    fn sum_up(&mut self, prediction: Prediction) -> Result<(), ModelError> {
        let Prediction { windows, values } = prediction;
        let answer = (*values).as_ref();
        let size = self.options.channels * self.options.roi.iter().product::<usize>();
        let expected = windows.count * size;
        if answer.len() != expected {
            return Err(ModelError::AnswerSize {
                found: answer.len(),
                expected,
            });
        }
        for answer in answer.chunks_exact(size) {
            self.sum_up_skipped();
            if let Some((place, _)) = self.waiting.pop_front() {
                self.sums.add(answer, &place);
            }
        }
        self.spare.push(windows.values);
        Ok(())
    }

    /// Adds the windows that were not run, up to the next one that was.
    fn sum_up_skipped(&mut self) {
        while let Some((place, false)) = self.waiting.front() {
            self.sums.add_background(place);
            self.waiting.pop_front();
        }
    }
}
