//! The HTTP surface: STOW-RS in, the REST interface, events, results, health, metrics and the first page.

mod settings;

pub use settings::{Role, ServiceSettings, User};
