//! Hilum: a chest CT series becomes a lung segmentation.
//!
//! The modules stand in the order of the way that a series takes; a module imports only from modules above it (`tests/architecture.rs` holds this).
//! Points and directions are DICOM patient coordinates (LPS, millimetres), volumes are `[slice][row][column]`, voxel values are Hounsfield units.
//!
//! Research use only.

/// Bytes to plain headers and frames; limits, transfer syntaxes, derived UIDs.
pub mod dicom;
/// Headers of one series to a stack of sorted slices and a verdict; every code that a user can meet.
pub mod series;
/// A stack and a frame reader to a volume in HU on its grid; to the network's grid and back.
pub mod volume;
/// A mask to a cleaned mask with right and left told apart, measured, and judged a second time.
pub mod lungs;
/// The manifest of a network, windows and blending, the ONNX Runtime session.
pub mod model;
/// DICOM Segmentation, NIfTI, overlay picture, report: as bytes.
pub mod output;
/// The way in three steps, `prepare`, `predict`, `finish`; the command line and the worker call only this.
pub mod segment;
/// Synthetic chests with their true masks.
pub mod phantom;
/// Dice and surface distances between masks.
pub mod evaluate;
/// The DICOMweb protocol, both directions: multipart/related, DICOM JSON, STOW-RS answers, QIDO-RS, WADO-RS and STOW-RS client.
pub mod dicomweb;
/// PostgreSQL: every SQL statement, the private cluster.
pub mod database;
/// From outside to a settled series: ingest, batch files, settling, the poller, retention.
pub mod inbox;
/// From a settled series to a stored result: the queue, leases, the worker.
pub mod jobs;
/// From a result to the PACS that shows it: destinations, verification, retries.
pub mod delivery;
/// The HTTP surface: STOW-RS in, REST, events, results, health, metrics, the first page.
pub mod http;
/// Settings: compiled-in defaults, then a file, then the environment.
pub mod config;
/// Logs.
pub mod telemetry;
/// The subcommands of the `hilum` program.
pub mod cli;
