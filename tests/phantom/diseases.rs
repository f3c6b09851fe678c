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

/// Each disease without any other, against the same patient in health: what it does to the lungs, in millilitres. Where other diseases are painted, other random numbers are drawn, and
/// vessels lie elsewhere; that moves these figures by some 10 mL.
#[test]
fn each_disease_shows_alone() {
    /// Lung as a whole, aerated (below -750 HU), as dense as tissue (above -300 HU and above -100 HU), and tissue where there was lung in health.
    struct Seen {
        lung: f64,
        aerated: f64,
        dense: f64,
        solid: f64,
        replaced: f64,
    }
    let none = Diseases::default();
    let alone = |change: &dyn Fn(&mut Diseases)| {
        let mut diseases = none.clone();
        change(&mut diseases);
        diseases
    };
    let seed = 5;
    let healthy = chest(&Specification::small(seed)).unwrap();
    let seen = |diseases: Diseases| {
        let phantom = chest(&Specification {
            diseases,
            ..Specification::small(seed)
        })
        .unwrap();
        let (hu, labels, before) = (hu(&phantom), &phantom.mask.labels, &healthy.mask.labels);
        Seen {
            lung: volume_ml(&phantom, |k| labels[k] > 0),
            aerated: volume_ml(&phantom, |k| labels[k] > 0 && hu[k] < -750),
            dense: volume_ml(&phantom, |k| labels[k] > 0 && hu[k] > -300),
            solid: volume_ml(&phantom, |k| labels[k] > 0 && hu[k] > -100),
            replaced: volume_ml(&phantom, |k| before[k] > 0 && labels[k] == 0 && hu[k] > -100),
        }
    };
    let health = seen(none.clone());
    let hazy = seen(alone(&|d| d.ground_glass = 1.0));
    assert!(hazy.aerated < health.aerated - 2000.0, "ground glass");
    let nodules = seen(alone(&|d| d.nodules = 1.0));
    assert!(nodules.solid > health.solid + 8.0, "nodules");
    let masses = seen(alone(&|d| d.masses = 1.0));
    assert!(masses.dense > health.dense + 150.0, "masses");
    assert!((masses.lung - health.lung).abs() < 50.0, "masses are lung");
    let fibrosis = seen(alone(&|d| d.fibrosis = 1.0));
    assert!(fibrosis.dense > health.dense + 400.0, "fibrosis");
    assert!(fibrosis.lung < health.lung - 300.0, "fibrosis shrinks");
    let effusion = seen(alone(&|d| d.effusion = 1.0));
    assert!(effusion.lung < health.lung - 700.0, "effusion");
    assert!(effusion.replaced > 700.0, "fluid is no lung");
    assert!(effusion.dense > health.dense + 200.0, "lung beside the fluid");
}
