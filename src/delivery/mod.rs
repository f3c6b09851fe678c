//! From a result to the PACS that shows it: destinations, verification, retries.

mod settings;

pub use settings::DeliverySettings;
