//! Verification: every damage is named, whatever the number of threads; sums find what no other look can.

#![allow(clippy::unwrap_used)]

mod common;

use common::{SCALE, checkpoint, edit_data, shard_of, sharded, shards};
use half::bf16;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::verify::{Report, compare_sums, parse_sums, small_file_sums, verify, write_sums};
use perilune_model::watch::{Unwatched, Watch};
use std::fs;
use std::path::Path;

fn report(dir: &Path, with_sums: bool, n_threads: usize) -> Report {
    let (checkpoint, damage) = Checkpoint::open_damaged(dir).unwrap();
    verify(&checkpoint, damage, with_sums, n_threads, &Unwatched).unwrap()
}

/// Exactly these findings, each holding each of its words.
fn check(report: &Report, expected: &[&[&str]]) {
    let found: Vec<&str> = report.damage.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for words in expected {
        let holds = |what: &&&str| words.iter().all(|word| what.contains(word));
        assert!(found.iter().any(|what| holds(&what)), "{words:?} is not in {found:#?}");
    }
}

#[test]
fn a_whole_checkpoint_is_intact() {
    let dir = sharded();
    let files: u64 = shards(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let n_tensors = Checkpoint::open(dir.path()).unwrap().names().count();
    for (with_sums, n_threads) in [(false, 1), (false, 3), (true, 2)] {
        let report = report(dir.path(), with_sums, n_threads);
        check(&report, &[]);
        assert_eq!((report.odd.len(), report.n_bytes, report.n_tensors), (0, files, n_tensors));
        assert_eq!(report.sums.len(), if with_sums { shards(dir.path()).len() } else { 0 });
    }
}

#[test]
fn all_damage_is_named_at_once() {
    let dir = sharded();
    let norm = "model.layers.2.input_layernorm.weight";
    let stored = "model.layers.1.mlp.experts.0.down_proj.weight_shape";
    let lost = shard_of(dir.path(), "lm_head.weight");
    edit_data(dir.path(), SCALE, |bytes| {
        bytes[4..6].copy_from_slice(&bf16::INFINITY.to_le_bytes());
        bytes[8..10].copy_from_slice(&bf16::NAN.to_le_bytes());
    });
    edit_data(dir.path(), norm, |bytes| bytes[126..128].copy_from_slice(&bf16::NAN.to_le_bytes()));
    edit_data(dir.path(), stored, |bytes| bytes[4] ^= 1);
    let cut = shard_of(dir.path(), "model.embed_tokens.weight");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    fs::remove_file(&lost).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let expected: [&[&str]; 5] = [
        &[SCALE, "2 NaN or infinite", "[1, 0]", "expected finite"],
        &[norm, "1 NaN or infinite", "[63]"],
        &[stored, "[64, 33]", "[64, 32]"],
        &[&name(&cut), "truncated", &bytes.len().to_string()],
        &[&name(&lost), "not in the folder"],
    ];
    let one = report(dir.path(), false, 1);
    check(&one, &expected);
    let many = report(dir.path(), true, 4);
    assert_eq!(one.damage, many.damage);
    assert!(one.damage.iter().any(|finding| finding.tensor.as_deref() == Some(SCALE)));
}

#[test]
fn zeros_of_an_unfinished_download_and_negative_scales_are_odd() {
    let mut wide: serde_json::Value = serde_json::from_str(common::TINY).unwrap();
    wide["moe_intermediate_size"] = 512.into();
    let dir = checkpoint(&wide.to_string(), |_| ());
    let packed = "model.layers.1.mlp.experts.2.up_proj.weight_packed";
    edit_data(dir.path(), packed, |bytes| bytes[4096..8192].fill(0));
    edit_data(dir.path(), SCALE, |bytes| bytes[3] |= 0x80);
    let report = report(dir.path(), false, 2);
    check(&report, &[]);
    let odd: Vec<&str> = report.odd.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(odd.len(), 2, "{odd:?}");
    assert!(odd.iter().any(|what| what.contains(packed) && what.contains("1 of its 4 blocks")), "{odd:?}");
    assert!(odd.iter().any(|what| what.contains(SCALE) && what.contains("1 negative")), "{odd:?}");
}

#[test]
fn sums_find_a_flipped_bit() {
    let dir = sharded();
    let list = dir.path().join("SUMS");
    let sums = |dir: &Path| {
        let mut sums = report(dir, true, 2).sums;
        sums.extend(small_file_sums(dir).unwrap());
        sums
    };
    let good = sums(dir.path());
    fs::write(&list, write_sums(&good)).unwrap();
    assert_eq!(parse_sums(&list).unwrap(), good);
    assert_eq!(compare_sums(dir.path(), &sums(dir.path()), &good), []);
    let path = shard_of(dir.path(), "lm_head.weight");
    edit_data(dir.path(), "lm_head.weight", |bytes| bytes[77] ^= 1);
    check(&report(dir.path(), true, 2), &[]);
    let found = compare_sums(dir.path(), &sums(dir.path()), &good);
    assert_eq!(found.len(), 1);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(found[0].what.contains(name) && found[0].what.contains("SHA-256"), "{found:?}");
}

#[test]
fn the_sum_is_sha256() {
    // The sum of "abc" by FIPS 180-2, appendix B.1.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "abc").unwrap();
    let sums = small_file_sums(dir.path()).unwrap();
    assert_eq!(
        write_sums(&sums),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  config.json\n"
    );
}

#[test]
fn lists_that_do_not_cover_or_exist_say_so() {
    let dir = sharded();
    let mut good = report(dir.path(), true, 1).sums;
    let dropped = good.pop().unwrap();
    let mut list = good.clone();
    list.push(perilune_model::verify::Sum { file: "gone.safetensors".into(), sha256: "0".repeat(64) });
    good.push(dropped.clone());
    let found = compare_sums(dir.path(), &good, &list);
    let whats: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert!(whats.iter().any(|what| what.contains("gone.safetensors") && what.contains("cannot be read")));
    assert!(whats.iter().any(|what| what.contains(&dropped.file) && what.contains("no sum")));
}

#[test]
fn lists_are_read_as_sha256sum_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("SUMS");
    let hex = "AB".repeat(32);
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        parse_sums(&path).map(|sums| sums.into_iter().map(|sum| sum.file).collect::<Vec<_>>())
    };
    let text = format!("{hex}  a.safetensors\n{hex} *b.safetensors\r\n\n{hex}  ./c d.safetensors\n");
    assert_eq!(read(&text).unwrap(), ["a.safetensors", "b.safetensors", "c d.safetensors"]);
    let bad = [
        format!("{hex}  ok\n{hex} x"),
        format!("{hex}  ok\n{hex}  ../x"),
        format!("{hex}  ok\nzz"),
        format!("{hex}  ok\né{hex}  a"),
    ];
    for text in bad {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("SUMS"), "{error}");
    }
    assert!(read("\n").unwrap_err().to_string().contains("no sums"));
    fs::remove_file(&path).unwrap();
    assert!(parse_sums(&path).unwrap_err().to_string().contains("cannot be read"));
}

/// Stops at once.
struct Stopped;

impl Watch for Stopped {
    fn advance(&self, _n_bytes: u64) {}
    fn stopped(&self) -> bool {
        true
    }
}

#[test]
fn a_stopped_verification_gives_no_verdict() {
    let dir = sharded();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(verify(&checkpoint, Vec::new(), true, 2, &Stopped), None);
}
