//! What the metrics tell of the work: seconds of every stage, and windows of the network.

use metrics::{counter, histogram};

use crate::output::report::{StageSeconds, WindowFacts};

/// Records the stages that a series went through, and the windows that the network saw for it.
pub(super) fn record(timings: &[StageSeconds], windows: Option<WindowFacts>) {
    for one in timings {
        histogram!("hilum_stage_seconds", "stage" => one.stage).record(one.seconds);
    }
    if let Some(windows) = windows {
        counter!("hilum_windows_total").increment(windows.run as u64);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_stage_and_the_windows_that_ran_are_recorded() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let stage = |stage, seconds| StageSeconds {
            stage,
            seconds,
            processor_seconds: seconds,
        };
        let windows = WindowFacts {
            total: 30,
            run: 24,
            skipped: 6,
            reused: 0,
        };
        metrics::with_local_recorder(&recorder, || {
            record(&[stage("read", 0.5), stage("windows", 8.0)], Some(windows));
            record(&[stage("read", 0.25)], None);
        });
        let text = recorder.handle().render();
        for line in [
            "hilum_stage_seconds_sum{stage=\"read\"} 0.75",
            "hilum_stage_seconds_count{stage=\"read\"} 2",
            "hilum_stage_seconds_sum{stage=\"windows\"} 8",
            "hilum_windows_total 24",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
