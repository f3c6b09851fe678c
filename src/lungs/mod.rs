//! A mask in, the cleaned mask with right and left told apart out; measured, and judged a second time.

use serde::{Deserialize, Serialize};

/// What is done to a mask on the source slices: part of a manifest's `[post]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanUp {
    /// So many largest components are kept (full connectivity, by volume); 0 keeps all.
    pub keep_components: usize,
    /// Components below this volume are dropped even so, in millilitres.
    pub min_component_ml: f64,
    /// Holes enclosed by lung up to this volume are filled, in millilitres; 0 fills none.
    pub fill_holes_ml: f64,
}
