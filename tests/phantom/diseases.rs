//! What ails the lungs shows in their HU, and a bare threshold fails on it.

use hilum::phantom::{Diseases, Specification, chest};

use crate::{body, dice, hu, threshold_segmenter, volume_ml};

fn ill() -> Vec<(&'static str, Diseases)> {
    let none = Diseases::default();
    vec![
        (
            "consolidation",
            Diseases {
                consolidation: 0.8,
                ..none.clone()
            },
        ),
        (
            "ground glass and consolidation",
            Diseases {
                ground_glass: 0.8,
                consolidation: 0.6,
                ..none.clone()
            },
        ),
        (
            "fibrosis",
            Diseases {
                fibrosis: 1.0,
                ground_glass: 0.3,
                ..none.clone()
            },
        ),
        (
            "masses",
            Diseases {
                masses: 1.0,
                nodules: 0.5,
                consolidation: 0.4,
                ..none.clone()
            },
        ),
        (
            "effusion",
            Diseases {
                effusion: 0.9,
                consolidation: 0.5,
                ..none
            },
        ),
    ]
}

#[test]
fn emphysema_thins_the_lungs_below_950_hu() {
    for seed in [1, 5] {
        let share = |emphysema: f64| {
            let phantom = chest(&Specification {
                diseases: Diseases {
                    emphysema,
                    ..Diseases::default()
                },
                ..Specification::small(seed)
            })
            .unwrap();
            let (hu, labels) = (hu(&phantom), &phantom.mask.labels);
            100.0 * volume_ml(&phantom, |k| labels[k] > 0 && hu[k] < -950) / volume_ml(&phantom, |k| labels[k] > 0)
        };
        let (healthy, ill) = (share(0.0), share(1.0));
        println!("seed {seed}: {healthy:.2} and {ill:.2} % below -950 HU");
        assert!(ill > healthy + 5.0, "seed {seed}: {healthy} {ill}");
    }
}

#[test]
fn a_pneumothorax_is_air_in_the_body_outside_the_mask() {
    for seed in [1, 5] {
        let air_ml = |pneumothorax: f64| {
            let phantom = chest(&Specification {
                diseases: Diseases {
                    pneumothorax,
                    ..Diseases::default()
                },
                ..Specification::small(seed)
            })
            .unwrap();
            let (hu, labels, body) = (hu(&phantom), &phantom.mask.labels, body(&phantom));
            volume_ml(&phantom, |k| body[k] && labels[k] == 0 && hu[k] < -950)
        };
        let (healthy, ill) = (air_ml(0.0), air_ml(1.0));
        println!("seed {seed}: {healthy:.0} and {ill:.0} mL of air");
        assert!(ill > healthy + 50.0, "seed {seed}: {healthy} {ill}");
    }
}

#[test]
fn a_bare_threshold_finds_healthy_lungs() {
    for seed in 1..=4 {
        let phantom = chest(&Specification::small(seed)).unwrap();
        let score = dice(&threshold_segmenter(&phantom), &phantom.mask.labels);
        println!("healthy, seed {seed}: {score:.3}");
        assert!(score > 0.9, "seed {seed}: {score}");
    }
}

#[test]
fn a_bare_threshold_loses_diseased_lungs() {
    for (name, diseases) in ill() {
        let mut scores = Vec::new();
        for seed in 1..=3 {
            let phantom = chest(&Specification {
                diseases: diseases.clone(),
                ..Specification::small(seed)
            })
            .unwrap();
            scores.push(dice(&threshold_segmenter(&phantom), &phantom.mask.labels));
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        println!("{name}: {mean:.3} of {scores:.3?}");
        assert!(mean < 0.9, "{name}: {scores:?}");
    }
}
