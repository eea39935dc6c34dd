//! The oracle is the Parquet crate's own encoder, and the plain decoders are that of those with vectors.

use std::sync::Arc;

use parquet::basic::{Encoding, Repetition};
use parquet::column::page::Page;
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use proptest::prelude::*;

use super::*;

/// The pages of a column of these values.
fn pages<T: DataType>(values: &[T::T], encoding: Option<Encoding>) -> Vec<Page> {
    let column =
        Type::primitive_type_builder("v", T::get_physical_type()).with_repetition(Repetition::REQUIRED);
    let schema = Type::group_type_builder("s").with_fields(vec![Arc::new(column.build().unwrap())]);
    let mut properties = WriterProperties::builder()
        .set_data_page_row_count_limit(1_000)
        .set_write_batch_size(500)
        .set_dictionary_enabled(encoding.is_none());
    if let Some(encoding) = encoding {
        properties = properties.set_encoding(encoding);
    }
    let schema = Arc::new(schema.build().unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let file = bytes::Bytes::from(writer.into_inner().unwrap());
    let reader = SerializedFileReader::new(file).unwrap();
    let group = reader.get_row_group(0).unwrap();
    group.get_column_page_reader(0).unwrap().map(Result::unwrap).collect()
}

fn decode<V: Value>(pages: Vec<Page>) -> Vec<V> {
    let (mut dictionary, mut values) = (Vec::new(), Vec::new());
    for page in pages {
        let count = page.num_values() as usize;
        match (&page, page.encoding()) {
            (Page::DictionaryPage { buf, .. }, _) => plain(buf, count, &mut dictionary).unwrap(),
            (_, Encoding::RLE_DICTIONARY) => {
                indexed(page.buffer(), count, &dictionary, &mut values).unwrap();
                positions_agree(page.buffer(), count).unwrap();
            }
            (_, Encoding::DELTA_BINARY_PACKED) => {
                deltas(page.buffer(), count, &mut values).unwrap();
                deltas_agree(page.buffer(), count).unwrap();
            }
            (_, Encoding::PLAIN) => plain(page.buffer(), count, &mut values).unwrap(),
            (_, other) => panic!("{other}"),
        }
    }
    values
}

/// What vectors give is what the plain decoder gives, also where that is an error.
fn deltas_agree(bytes: &[u8], count: usize) -> Result<(), TestCaseError> {
    let (mut plain, mut vectors) = (vec![7], vec![7]);
    let plain = plain_deltas::<i32>(bytes, count, &mut plain).map(|()| plain).map_err(|e| e.to_string());
    let vectors = deltas(bytes, count, &mut vectors).map(|()| vectors).map_err(|e| e.to_string());
    prop_assert_eq!(plain, vectors);
    Ok(())
}

fn positions_agree(bytes: &[u8], count: usize) -> Result<(), TestCaseError> {
    if let [width @ 0..=8, rest @ ..] = bytes {
        let plain = plain_positions(Input(rest), *width, count).map_err(|error| error.to_string());
        prop_assert_eq!(plain, positions(Input(rest), *width, count).map_err(|error| error.to_string()));
    }
    Ok(())
}

/// Steps of every magnitude, runs, few distinct values and many.
fn values() -> impl Strategy<Value = Vec<i64>> {
    let step = (0..64_u32, any::<i64>()).prop_map(|(shift, bits)| bits >> shift);
    let runs = (1..600_usize, 0..5_i64).prop_map(|(count, value)| vec![value; count]);
    let few = prop::collection::vec(0..40_i64, 0..700);
    let any_steps = prop::collection::vec(step, 0..700);
    let part = prop_oneof![runs, few, any_steps];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_parquet_encodes_is_decoded(values in values()) {
        let narrow: Vec<i32> = values.iter().map(|value| *value as i32).collect();
        for encoding in [None, Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::PLAIN)] {
            prop_assert_eq!(&decode::<i64>(pages::<Int64Type>(&values, encoding)), &values);
            prop_assert_eq!(&decode::<i32>(pages::<Int32Type>(&narrow, encoding)), &narrow);
        }
    }

    #[test]
    fn any_bytes_are_values_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0..5_000_usize) {
        let (mut values, mut narrow) = (Vec::<i64>::new(), Vec::<i32>::new());
        for decoded in [
            deltas(&bytes, count, &mut values).map(|()| values.len()),
            deltas(&bytes, count, &mut narrow).map(|()| narrow.len()),
        ] {
            prop_assert!(decoded.is_err() || decoded.ok() == Some(count));
        }
        let mut values = Vec::new();
        let decoded = indexed(&bytes, count, &[7_i64, 8], &mut values);
        prop_assert!(decoded.is_err() || values.len() == count);
    }

    #[test]
    fn vectors_of_any_bytes_are_those_of_the_plain_decoder(
        bytes in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..600),
        widths in any::<[u8; 4]>(),
        width_max in 0..=80_u8,
        count in 0..300_u16,
    ) {
        // Blocks of four miniblocks; the first value and the first block's least difference are 1.
        let count_bytes = [count as u8 | 0x80, (count >> 7) as u8];
        let widths = widths.map(|width| width % (width_max + 1));
        let page = [&[128, 1, 4], &count_bytes[..], &[2, 2], &widths, &bytes].concat();
        deltas_agree(&page, usize::from(count))?;
        let width = width_max % 9;
        positions_agree(&[&[width], &bytes[..]].concat(), usize::from(count))?;
    }
}

#[test]
fn a_position_outside_the_dictionary_is_an_error() {
    // Of width 2: a run of four times position 2, then eight packed positions of 0 but for the last, which is 3.
    let page = [2, 4 << 1, 2, 3, 0, 0b1100_0000];
    let decode = |count, dictionary: &[i64]| {
        let mut values = Vec::new();
        indexed(&page, count, dictionary, &mut values).map(|()| values)
    };
    assert_eq!(decode(12, &[5, 6, 7, 8]).unwrap(), [7, 7, 7, 7, 5, 5, 5, 5, 5, 5, 5, 8]);
    assert_eq!(decode(11, &[5, 6, 7]).unwrap(), [7, 7, 7, 7, 5, 5, 5, 5, 5, 5, 5], "the last is padding");
    assert!(decode(12, &[5, 6, 7]).is_err());
    assert!(decode(4, &[5, 6]).is_err());
    assert!(decode(1, &[]).is_err());
    assert!(decode(0, &[]).unwrap().is_empty());
}

#[test]
fn every_width_is_unpacked() {
    for width in 0..=64_u32 {
        let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
        let steps: Vec<u64> = (1..=32_u64)
            .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(n as u32) & mask)
            .collect();
        let mut bits = vec![false; 32 * width as usize];
        for (index, step) in steps.iter().enumerate() {
            (0..width).for_each(|bit| bits[index * width as usize + bit as usize] = step >> bit & 1 == 1);
        }
        let bytes: Vec<u8> = bits
            .chunks(8)
            .map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | u8::from(*bit)))
            .collect();
        // One block of one miniblock, 33 values, the first 0, no least difference.
        let page: Vec<u8> = [vec![32, 1, 33, 0, 0, width as u8], bytes].concat();
        let mut values = Vec::<i64>::new();
        deltas(&page, 33, &mut values).unwrap();
        let mut sum = 0_i64;
        for (value, step) in values[1..].iter().zip(&steps) {
            sum = sum.wrapping_add(*step as i64);
            assert_eq!(*value, sum, "width {width}");
        }
        deltas_agree(&page, 33).unwrap();
    }
}
