//! Lung and aerated pixels of one slice in, the lung that follows the edge of the aerated out.
//!
//! Two sets are looked at, each by what is narrower than a disc:
//!
//! * what is aerated, not lung, and touches aerated lung by a side comes in where it is narrower than the disc. What is wider was seen by the network and refused: windpipe,
//!   bowel, air outside. A narrow piece that leads further away than the disc is wide (a slit, a leak) stays out as a whole. So does what lies in or beside a disc of
//!   free gas: where the network took most of a windpipe, the rest of it does not follow.
//! * what is lung and dense stays where it is as wide as the disc (consolidation, mass, a great vessel), and where no disc free of aerated lung can cover it (vessels and walls between
//!   aerated lung, the notch where a vessel meets the surface). The rest is a rim between aerated lung and what is not lung: chest wall, mediastinum, the wall of an
//!   airway. It goes.
//!
//! A disc that covers a pixel of the rim meets neither aerated lung nor is it all dense lung, so it reaches what is not lung: all that goes lies within the disc's diameter of the
//! surface. Nothing aerated goes. Both rules are openings and closings of sets which the step itself does not change, so that doing it twice is doing it once.

use super::bits::{Bits, Disc, Steps};

/// How far the lung follows, on pixels of one spacing.
#[derive(Debug)]
pub(super) struct Edge {
    disc: Disc,
    rows_beside: usize,
    steps: Steps,
}

/// What comes in, and what goes.
#[derive(Debug)]
pub(super) struct Followed {
    /// Aerated pixels that were not lung.
    pub(super) added: Bits,
    /// Dense pixels that were lung.
    pub(super) removed: Bits,
}

impl Edge {
    /// `band_mm` is the diameter of the disc.
    pub(super) fn new(band_mm: f64, spacing_mm: [f64; 2]) -> Edge {
        let disc = Disc::new(band_mm / 2.0, spacing_mm);
        Edge {
            rows_beside: (band_mm / spacing_mm[0]).ceil() as usize + 2 * disc.rows() + 2,
            steps: Steps::new(band_mm, spacing_mm),
            disc,
        }
    }

    /// Rows beside the lung that decide about it: the steps taken there and the disc around the last one.
    pub(super) fn rows_beside(&self) -> usize {
        self.rows_beside
    }

    /// The sets on one image; `gas` is as thin as free air.
    pub(super) fn follow(&self, lung: &Bits, aerated: &Bits, gas: &Bits) -> Followed {
        let core = lung.and(aerated);
        let free = aerated.minus(lung);
        let lumen = gas.open(&self.disc).dilate(&self.disc);
        let narrow = free.minus(&free.open(&self.disc)).minus(&lumen);
        let beside = core.beside(&narrow);
        let reached = beside.flood(&narrow);
        let too_far = reached.minus(&beside.walk(&narrow, &self.steps));
        let added = reached.minus(&too_far.flood(&reached));

        let air = core.or(&added);
        let dense = lung.minus(aerated);
        let kept = dense.open(&self.disc).or(&air.close(&self.disc));
        Followed {
            removed: dense.minus(&kept),
            added,
        }
    }
}
