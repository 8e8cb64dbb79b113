//! Encodes values for CloudWatch, and determines how many of them fit into a request.

use std::{collections::BTreeMap, time::SystemTime};

use aws_sdk_cloudwatch::{
    primitives::DateTime,
    types::{Dimension, MetricDatum, StandardUnit, StatisticSet},
};
use signalbox_config::StorageResolution;
use signalbox_telemetry::metrics::{BUCKETS, Bucket, table::Unit};

use super::interval::{Amount, Samples, Series, SeriesValue};

/// The most metrics in a request, by CloudWatch's rules.
pub(super) const REQUEST_DATUMS_MAX: usize = 1_000;

/// The most bytes in a request, uncompressed. CloudWatch's limit is 1 MB; this way it does not matter whether it
/// applies before or after compression.
pub(super) const REQUEST_BYTES_MAX: usize = 1_000_000;

/// Bytes of a request in addition to its metrics: names of fields, and a namespace of at most 255 bytes.
pub(super) const REQUEST_BASE_BYTES: usize = 512;

/// The most distinct values of a metric, by CloudWatch's rules.
const VALUES_MAX: usize = 150;

// A distribution has at most one value for each bucket, so it fits into one metric.
const _: () = assert!(BUCKETS <= VALUES_MAX);

/// The values of `series` at `time`.
pub(super) fn datum(
    series: &Series,
    value: &SeriesValue,
    time: SystemTime,
    resolution: StorageResolution,
) -> MetricDatum {
    let dimensions = series
        .dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(*name).value(value).build());
    let datum = MetricDatum::builder()
        .metric_name(series.metric)
        .set_dimensions(Some(dimensions.collect()))
        .timestamp(DateTime::from(time))
        .unit(unit(value.unit))
        .storage_resolution(match resolution {
            StorageResolution::Second => 1,
            StorageResolution::Minute => 60,
        });
    match &value.amount {
        Amount::Count(count) => datum.value(*count as f64),
        Amount::Samples(Samples { count: 1, sum, .. }) => datum.value(*sum),
        Amount::Samples(samples) => datum.statistic_values(statistics(samples)),
        Amount::Distribution(buckets) => {
            let (values, counts) = means(buckets);
            datum.set_values(Some(values)).set_counts(Some(counts))
        }
    }
    .build()
}

fn unit(unit: Unit) -> StandardUnit {
    match unit {
        Unit::Count => StandardUnit::Count,
        Unit::Milliseconds => StandardUnit::Milliseconds,
        Unit::Bytes => StandardUnit::Bytes,
        Unit::Truth | Unit::PluginsOwn => StandardUnit::None,
    }
}

fn statistics(samples: &Samples) -> StatisticSet {
    StatisticSet::builder()
        .sample_count(f64::from(samples.count))
        .sum(samples.sum)
        .minimum(samples.min)
        .maximum(samples.max)
        .build()
}

/// The mean of each bucket, in milliseconds, and its count. So sums and averages are exact, and a percentile is one of
/// the recorded values, or near it.
fn means(buckets: &BTreeMap<usize, Bucket>) -> (Vec<f64>, Vec<f64>) {
    buckets
        .values()
        .map(|Bucket { count, sum_ns }| {
            let count = *count as f64;
            (*sum_ns as f64 / count / 1e6, count)
        })
        .unzip()
}

/// The most bytes that `datum` takes in CBOR, the format that the SDK sends.
pub(super) fn bytes_max(datum: &MetricDatum) -> usize {
    // A number takes at most 9 bytes, and so does the header of a text.
    const NUMBER: usize = 9;
    // `MetricName`, `Timestamp`, `StatisticValues` and so on, with the values of fields of a fixed size.
    const FIELDS: usize = 256;
    let text = |text: Option<&str>| text.map_or(0, str::len) + NUMBER;
    let dimensions = datum.dimensions().iter().map(|dimension| {
        "Name".len() + "Value".len() + 2 * NUMBER + text(dimension.name()) + text(dimension.value())
    });
    FIELDS
        + text(datum.metric_name())
        + dimensions.sum::<usize>()
        + (datum.values().len() + datum.counts().len()) * NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(amount: Amount) -> MetricDatum {
        let series = Series {
            metric: "M",
            dimensions: vec![("ServerID", "n1".to_owned())],
        };
        let unit = Unit::Milliseconds;
        let time = SystemTime::UNIX_EPOCH;
        datum(
            &series,
            &SeriesValue { unit, amount },
            time,
            StorageResolution::Second,
        )
    }

    #[test]
    fn a_distribution_is_sent_as_the_means_of_its_buckets() {
        let bucket = |count, sum_ns| Bucket { count, sum_ns };
        let buckets = [(40, bucket(3, 3_600_000)), (56, bucket(1, 20_000_000))];
        let datum = encode(Amount::Distribution(buckets.into()));
        assert_eq!(datum.values(), [1.2, 20.0]);
        assert_eq!(datum.counts(), [3.0, 1.0]);
        assert_eq!(datum.value(), None);
        assert_eq!(datum.unit(), Some(&StandardUnit::Milliseconds));
        assert_eq!(datum.storage_resolution(), Some(1));
    }

    #[test]
    fn a_gauge_is_sent_as_its_value_or_as_statistics_of_several_values() {
        assert_eq!(
            encode(Amount::Samples(Samples::one(7.0))).value(),
            Some(7.0)
        );
        let datum = encode(Amount::Samples(Samples {
            count: 2,
            sum: 9.0,
            min: 2.0,
            max: 7.0,
        }));
        let statistics = datum.statistic_values().unwrap();
        assert_eq!(
            (statistics.sample_count(), statistics.sum()),
            (Some(2.0), Some(9.0))
        );
        assert_eq!(
            (statistics.minimum(), statistics.maximum()),
            (Some(2.0), Some(7.0))
        );
    }
}
