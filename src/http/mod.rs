//! The HTTP surface: STOW-RS in, the REST interface, events, results, health, metrics and the first page.

mod settings;
pub mod stow;

pub use settings::{Role, ServiceSettings, User};
