//! The JSON of jobs, series, deliveries and events.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::database::{DeliveryRow, Event, EventRow, JobRow, SeriesRow};

/// A job: one series as it stood, one network, one set of parameters.
#[derive(Serialize, ToSchema)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    /// queued, running, done, refused, failed, canceled or superseded.
    pub(crate) state: String,
    pub(crate) series: SeriesOfJob,
    /// It stands for its series: no other was made or wished for later, but for such as were superseded.
    pub(crate) newest: bool,
    pub(crate) priority: i16,
    pub(crate) attempts: i32,
    /// Workers that died over it.
    pub(crate) deaths: i32,
    pub(crate) cancel_requested: bool,
    pub(crate) stage: Option<String>,
    pub(crate) windows_done: i32,
    pub(crate) windows_total: i32,
    /// By the pace of this attempt so far.
    pub(crate) seconds_left: Option<f64>,
    /// Why it was refused or failed.
    pub(crate) error: Option<Reason>,
    /// The verdict on the series: outcome and findings, each with a stable code and a sentence.
    #[schema(value_type = Option<Object>)]
    pub(crate) verdict: Option<Value>,
    /// The verdict on the mask: its findings.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(crate) mask_findings: Option<Value>,
    /// Figures of both lungs and of each, as in report.json.
    #[schema(value_type = Option<Object>)]
    pub(crate) measurements: Option<Value>,
    pub(crate) model: Model,
    /// The job of the series that this one follows, since more slices came or the network changed.
    pub(crate) predecessor: Option<Uuid>,
    pub(crate) segmentation_uid: Option<String>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Where nothing of it goes, and why.
    pub(crate) withheld: Vec<Withheld>,
    /// What retention removed, and when.
    #[schema(value_type = Option<Object>)]
    pub(crate) removed: Option<Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// When its latest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) finished_at: Option<OffsetDateTime>,
    pub(crate) links: Links,
    /// Timings, provider, windows and volume, as in report.json; only where one job is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Details>,
}

/// What else the report says.
#[derive(Serialize, ToSchema)]
pub(crate) struct Details {
    #[schema(value_type = Option<Vec<Object>>)]
    pub(crate) timings: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) model: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) provider: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) windows: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) volume: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) sides: Value,
    #[schema(value_type = Option<Object>)]
    pub(crate) clean_up: Value,
}

impl Details {
    pub(crate) fn of(report: &Value) -> Details {
        let part = |name: &str| report.get(name).cloned().unwrap_or(Value::Null);
        Details {
            timings: part("timings"),
            model: part("model"),
            provider: part("provider"),
            windows: part("windows"),
            volume: part("volume"),
            sides: part("sides"),
            clean_up: part("clean_up"),
        }
    }
}

/// The series of a job.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesOfJob {
    pub(crate) id: i64,
    pub(crate) study_uid: String,
    pub(crate) series_uid: String,
    /// The PACS that it came from, where one is known.
    pub(crate) source: Option<String>,
    pub(crate) accession_number: String,
    pub(crate) patient_id: String,
    pub(crate) study_date: String,
    pub(crate) study_description: String,
    pub(crate) series_description: String,
    pub(crate) instances: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) received_at: OffsetDateTime,
}

/// A code and its sentence.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reason {
    pub(crate) code: String,
    pub(crate) sentence: String,
}

/// The network of a job.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) digest: String,
    /// Of how the network is used, and of the limits of `[series]` and `[mask]`, but for `max_memory_bytes`.
    pub(crate) parameters_digest: String,
    pub(crate) pipeline_revision: i32,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    pub(crate) itself: String,
    pub(crate) series: String,
    pub(crate) events: String,
    /// The results that were made.
    pub(crate) results: Vec<String>,
}

/// A result on its way to a PACS.
#[derive(Serialize, ToSchema)]
pub(crate) struct Delivery {
    pub(crate) id: i64,
    pub(crate) destination: String,
    /// pending, sending, delivered, given_up or withdrawn.
    pub(crate) state: String,
    pub(crate) file: String,
    pub(crate) sop_instance_uid: String,
    pub(crate) attempts: i32,
    pub(crate) error: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) next_attempt_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) delivered_at: Option<OffsetDateTime>,
}

/// A PACS to which nothing of a finished job goes.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Withheld {
    /// Name of the PACS; null: nothing goes anywhere.
    pub(crate) destination: Option<String>,
    /// lungs_not_found, no_segmentation, no_destination, unknown_destination, deliver_nothing, implausible_volume, sides_uncertain, profile_not_made or
    /// more_slices_came.
    pub(crate) why: String,
}

/// A series.
#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    pub(crate) id: i64,
    /// receiving, settled, taken or ignored.
    pub(crate) state: String,
    /// Who said that it is whole: sender, count, quiet or finalize.
    pub(crate) settled_by: Option<String>,
    pub(crate) study_uid: String,
    pub(crate) series_uid: String,
    pub(crate) source: Option<String>,
    pub(crate) modality: String,
    pub(crate) accession_number: String,
    pub(crate) patient_id: String,
    pub(crate) study_date: String,
    pub(crate) study_description: String,
    pub(crate) series_description: String,
    pub(crate) instances: i32,
    /// What its source says that it has.
    pub(crate) source_count: Option<i32>,
    pub(crate) bytes: i64,
    pub(crate) priority: i16,
    /// Why it is ignored.
    pub(crate) finding: Option<Reason>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) received_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) last_instance_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) settled_at: Option<OffsetDateTime>,
}

/// A series with what happened to it.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesWithEvents {
    #[serde(flatten)]
    pub(crate) series: Series,
    pub(crate) jobs: Vec<Job>,
    pub(crate) events: Vec<Happened>,
}

/// An event.
#[derive(Serialize, ToSchema)]
pub(crate) struct Happened {
    pub(crate) id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    pub(crate) kind: String,
    pub(crate) series_id: Option<i64>,
    pub(crate) job_id: Option<Uuid>,
    pub(crate) delivery_id: Option<i64>,
    pub(crate) actor: String,
    #[schema(value_type = Object)]
    pub(crate) detail: Value,
}

fn reason(code: Option<String>, sentence: Option<String>) -> Option<Reason> {
    code.map(|code| Reason {
        code,
        sentence: sentence.unwrap_or_default(),
    })
}

impl Job {
    pub(crate) fn new(row: JobRow, deliveries: Vec<Delivery>) -> Job {
        let itself = format!("/api/v1/jobs/{}", row.id);
        let names = row
            .files
            .as_ref()
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut results: Vec<String> = names
            .iter()
            .filter_map(|file| Some(format!("{itself}/result/{}", file.get("name")?.as_str()?)))
            .collect();
        if row.result_folder.is_some() {
            results.push(format!("{itself}/result/report.json"));
        } else {
            results.clear();
        }
        Job {
            id: row.id,
            state: row.state,
            newest: row.newest,
            priority: row.priority,
            attempts: row.attempts,
            deaths: row.deaths,
            cancel_requested: row.cancel_requested,
            stage: row.stage,
            windows_done: row.windows_done,
            windows_total: row.windows_total,
            seconds_left: row.seconds_left,
            error: reason(row.error_code, row.error_sentence),
            verdict: row.verdict,
            mask_findings: row.mask_findings,
            measurements: row.measurements,
            model: Model {
                name: row.model,
                digest: row.model_digest,
                parameters_digest: row.parameters_digest,
                pipeline_revision: row.pipeline_revision,
            },
            predecessor: row.predecessor,
            segmentation_uid: row.segmentation_uid,
            deliveries,
            withheld: row
                .withheld
                .and_then(|withheld| serde_json::from_value(withheld).ok())
                .unwrap_or_default(),
            removed: row.removed,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            links: Links {
                series: format!("/api/v1/series/{}", row.series_id),
                events: format!("{itself}/events"),
                results,
                itself,
            },
            series: SeriesOfJob {
                id: row.series_id,
                study_uid: row.study_uid,
                series_uid: row.series_uid,
                source: row.source,
                accession_number: row.accession_number,
                patient_id: row.patient_id,
                study_date: row.study_date,
                study_description: row.study_description,
                series_description: row.series_description,
                instances: row.instances,
                received_at: row.received_at,
            },
            details: None,
        }
    }

    /// Every sentence about it: of the verdicts, and why it was refused or failed.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let findings = [
            self.verdict.as_ref().and_then(|verdict| verdict.get("findings")),
            self.mask_findings.as_ref(),
        ];
        let mut sentences: Vec<String> = self.error.iter().map(|error| error.sentence.clone()).collect();
        for finding in findings.into_iter().flatten().filter_map(Value::as_array).flatten() {
            if let Some(sentence) = finding.get("sentence").and_then(Value::as_str)
                && !sentences.iter().any(|other| other == sentence)
            {
                sentences.push(sentence.to_owned());
            }
        }
        sentences
    }

    /// A figure of the report: `figure("/total/volume_ml")`.
    pub(crate) fn figure(&self, pointer: &str) -> Option<f64> {
        self.measurements.as_ref()?.pointer(pointer)?.as_f64()
    }

    /// Whether this result was made and can be asked for.
    pub(crate) fn has_result(&self, name: &str) -> bool {
        self.links.results.iter().any(|link| link.ends_with(name))
    }
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Delivery {
        Delivery {
            id: row.id,
            destination: row.destination,
            state: row.state,
            file: row.file,
            sop_instance_uid: row.sop_instance_uid,
            attempts: row.attempts,
            error: row.error,
            next_attempt_at: row.not_before,
            delivered_at: row.delivered_at,
        }
    }
}

impl From<SeriesRow> for Series {
    fn from(row: SeriesRow) -> Series {
        Series {
            id: row.id,
            state: row.state,
            settled_by: row.settled_by,
            study_uid: row.study_uid,
            series_uid: row.series_uid,
            source: row.source,
            modality: row.modality,
            accession_number: row.accession_number,
            patient_id: row.patient_id,
            study_date: row.study_date,
            study_description: row.study_description,
            series_description: row.series_description,
            instances: row.instances,
            source_count: row.source_count,
            bytes: row.bytes,
            priority: row.priority,
            finding: reason(row.finding_code, row.finding_sentence),
            received_at: row.received_at,
            last_instance_at: row.last_instance_at,
            settled_at: row.settled_at,
        }
    }
}

impl From<EventRow> for Happened {
    fn from(row: EventRow) -> Happened {
        Happened {
            id: row.id,
            at: row.at,
            kind: row.kind,
            series_id: row.series_id,
            job_id: row.job_id,
            delivery_id: row.delivery_id,
            actor: row.actor,
            detail: row.detail,
        }
    }
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Happened {
        Happened {
            id: event.place.id,
            at: event.at,
            kind: event.kind.clone(),
            series_id: event.series_id,
            job_id: event.job_id,
            delivery_id: event.delivery_id,
            actor: event.actor.clone(),
            detail: event.detail.clone(),
        }
    }
}
