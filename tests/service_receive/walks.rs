//! Random walks of a series against a model of what is held of it, where it stands, and which jobs it has.

use std::collections::{BTreeMap, BTreeSet};

use hilum::database::{Database, JobEnd, JobSpecification};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;

/// What a random walk may do to one series.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A slice comes, with some pixels; its sender may say that the series is whole.
    Slice { number: u8, seed: i16, whole: bool },
    /// An object of the series that is no CT.
    Other { whole: bool },
    /// A quiet time is over.
    Quiet,
    /// Its source says how many instances it has.
    Count(u32),
    /// A user says that it is whole.
    Finalize,
    /// A job is made.
    Take,
    /// Jobs of series that grew are superseded.
    Supersede,
    /// A worker takes the next job and finishes it.
    Work,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..3, 0i16..2, any::<bool>()).prop_map(|(number, seed, whole)| Step::Slice { number, seed, whole }),
        1 => any::<bool>().prop_map(|whole| Step::Other { whole }),
        1 => Just(Step::Quiet),
        1 => (1u32..4).prop_map(Step::Count),
        1 => Just(Step::Finalize),
        4 => Just(Step::Take),
        1 => Just(Step::Supersede),
        2 => Just(Step::Work),
    ];
    proptest::collection::vec(step, 1..40)
}

fn specification() -> JobSpecification {
    JobSpecification {
        model: "m".into(),
        model_digest: "d".into(),
        parameters_digest: "p".into(),
        pipeline_revision: 1,
    }
}

/// The pixels of the newest slices by their number: what a revision stands for.
type Slices = BTreeMap<u8, i16>;

/// One series on its way, and its model.
struct Walk<'a> {
    place: &'a Place,
    database: &'a Database,
    uid: String,
    id: i64,
    state: Option<SeriesState>,
    known: BTreeSet<(u8, i16)>,
    newest: Slices,
    /// Jobs by their slices: queued, superseded or done.
    jobs: BTreeMap<Slices, &'static str>,
}

impl Walk<'_> {
    fn slice(&self, number: u8, seed: i16) -> Vec<u8> {
        ct(STUDY, &self.uid, &format!("1.2.4.{number}"), seed)
    }

    /// What a sender brings changes the model, too.
    async fn receive(&mut self, part: Vec<u8>, whole: bool) -> Outcome {
        let origin = Origin {
            complete: whole,
            actor: "test".into(),
            ..Origin::default()
        };
        let receipt = self.place.receive_from(&[part], &origin).await.unwrap();
        self.id = receipt.series[0].id;
        assert_eq!(Some(receipt.series[0].state), self.state);
        receipt.instances[0].outcome.clone()
    }

    async fn step(&mut self, step: Step) {
        let waits = self.state == Some(SeriesState::Receiving);
        let settles = match step {
            Step::Slice { number, seed, whole } => {
                let wanted = if !self.known.insert((number, seed)) {
                    match self.newest[&number] == seed {
                        true => Stored::Duplicate,
                        false => Stored::Older,
                    }
                } else if self.newest.insert(number, seed).is_some() {
                    Stored::Revised
                } else {
                    Stored::New
                };
                if matches!(wanted, Stored::New | Stored::Revised) {
                    self.state = Some(SeriesState::Receiving);
                }
                if whole && self.state == Some(SeriesState::Receiving) {
                    self.state = Some(SeriesState::Settled);
                }
                assert_eq!(
                    self.receive(self.slice(number, seed), whole).await,
                    Outcome::Stored(wanted)
                );
                false
            }
            Step::Other { whole } => {
                self.state.get_or_insert(SeriesState::Ignored);
                let seg = object(STUDY, &self.uid, "1.2.4.9", "SEG", "1.2.840.10008.5.1.4.1.1.66.4", 0);
                assert_eq!(self.receive(seg, whole).await, Outcome::Dropped);
                false
            }
            Step::Quiet => self.database.settle_quiet(self.id, 0.0, "test").await.unwrap(),
            Step::Count(count) => {
                let settles = self
                    .database
                    .count_answered(self.id, Some(count), 0.0, "test")
                    .await
                    .unwrap();
                assert_eq!(settles, waits && count as usize == self.newest.len());
                settles
            }
            Step::Finalize => self.database.finalize_series(self.id, "test").await.unwrap(),
            Step::Take => {
                let settled = self.state == Some(SeriesState::Settled);
                let made = self.database.make_job(&specification()).await.unwrap();
                assert_eq!(
                    made.map(|job| job.new),
                    settled.then_some(!self.jobs.contains_key(&self.newest))
                );
                if settled {
                    self.state = Some(SeriesState::Taken);
                    self.supersede();
                    let job = self.jobs.entry(self.newest.clone()).or_insert("queued");
                    *job = if *job == "done" { "done" } else { "queued" };
                }
                false
            }
            Step::Supersede => {
                let superseded = self.database.supersede_reopened().await.unwrap();
                assert_eq!(superseded, if waits { self.supersede() } else { 0 });
                false
            }
            Step::Work => {
                let claim = self.database.claim_job("w", 60.0, true).await.unwrap();
                let queued = self.jobs.values_mut().find(|state| **state == "queued");
                assert_eq!(claim.is_some(), queued.is_some());
                if let (Some(claim), Some(queued)) = (claim, queued) {
                    let end = JobEnd::Done {
                        report: serde_json::json!({}),
                        result_folder: "results/x/1".into(),
                        segmentation_uid: None,
                    };
                    assert!(self.database.end_job(&claim, "w", &end).await.unwrap());
                    *queued = "done";
                }
                false
            }
        };
        if matches!(step, Step::Quiet | Step::Finalize) {
            assert_eq!(settles, waits);
        }
        if settles {
            self.state = Some(SeriesState::Settled);
        }
    }

    /// Supersedes what is queued; how many there were.
    fn supersede(&mut self) -> usize {
        let queued = self.jobs.values_mut().filter(|state| **state == "queued");
        queued.map(|state| *state = "superseded").count()
    }

    /// The rows say what the model says.
    async fn agrees(&self) {
        let row = "select state, instances, revision is not null from series where id = $1";
        let row: Option<(SeriesState, i32, bool)> = sqlx::query_as(row)
            .bind(self.id)
            .fetch_optional(&self.place.pool)
            .await
            .unwrap();
        let revised = matches!(self.state, Some(SeriesState::Settled | SeriesState::Taken));
        let held = self.newest.len() as i32;
        assert_eq!(row, self.state.map(|state| (state, held, revised)));
        let jobs = "select state::text from job where series_id = $1";
        let mut jobs: Vec<String> = sqlx::query_scalar(jobs)
            .bind(self.id)
            .fetch_all(&self.place.pool)
            .await
            .unwrap();
        jobs.sort();
        let mut wanted: Vec<&str> = self.jobs.values().copied().collect();
        wanted.sort();
        assert_eq!(jobs, wanted);
        let bytes: Vec<Vec<u8>> = self
            .newest
            .iter()
            .map(|(number, seed)| self.slice(*number, *seed))
            .collect();
        assert_eq!(self.place.bytes_of(self.id).await, bytes);
    }
}

/// Walks at least, and at most, until some came to a good end.
const WALKS: std::ops::Range<usize> = 16..64;
/// So many jobs done are a good end.
const ENOUGH_DONE: i64 = 6;

/// Draws other walks in each run, unless `PROPTEST_RNG_SEED` is that of an earlier one, which printed it.
fn runner() -> TestRunner {
    let mut config = Config::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    println!("PROPTEST_RNG_SEED={}", config.rng_seed);
    TestRunner::new(config)
}

/// A series stands where its model says whatever comes in whatever order; the same slices are one job, which is open while it is the newest and no other is.
#[tokio::test]
async fn random_walks_of_a_series_follow_their_model() {
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        let mut runner = runner();
        let mut done = 0;
        for number in 0..WALKS.end {
            if number >= WALKS.start && done >= ENOUGH_DONE {
                break;
            }
            let steps = steps().new_tree(&mut runner).unwrap().current();
            let mut walk = Walk {
                place: &place,
                database: &database,
                uid: format!("1.2.3.{number}"),
                id: 0,
                state: None,
                known: BTreeSet::new(),
                newest: Slices::new(),
                jobs: BTreeMap::new(),
            };
            for (at, step) in steps.iter().enumerate() {
                println!("walk {number}: {:?}", &steps[..=at]);
                walk.step(*step).await;
                walk.agrees().await;
            }
            done += walk.jobs.values().filter(|state| **state == "done").count() as i64;
            place.execute("update series set state = 'taken'").await;
            place
                .execute("update job set state = 'canceled' where state = 'queued'")
                .await;
        }
        assert!(done >= ENOUGH_DONE, "some walks come to a good end");
        assert_eq!(place.events("job_done").await, done);
    })
    .await;
}
