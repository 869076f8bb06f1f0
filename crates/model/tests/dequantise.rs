//! INT4 weights decode to what the compressed-tensors library itself gives, weight by weight: as BF16 after
//! rounding, and in `f32` unrounded. (`goldens/int4_fixture.safetensors`, made by `tools/oracle/make_int4_fixture.py`.)

#![allow(clippy::unwrap_used)]

use half::bf16;
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::matmul::{Rows, matmul};
use perilune_kernels::matrix::{Matrix, MatrixData};
use perilune_kernels::quant::dequantized_bf16;
use safetensors::SafeTensors;

fn bf16s(bytes: &[u8]) -> Vec<bf16> {
    bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b)).collect()
}

/// A NaN equals a NaN; everything else is compared by its bits.
fn same(a: bf16, b: bf16) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn every_weight_equals_the_librarys() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/int4_fixture.safetensors"));
    let bytes = bytes.unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stems: Vec<&str> =
        file.names().into_iter().filter_map(|n| n.strip_suffix(".weight_packed")).collect();
    assert!(stems.len() >= 3);
    for stem in stems {
        let tensor = |part: &str| file.tensor(&format!("{stem}.{part}")).unwrap();
        let expect = bf16s(tensor("dequantized").data());
        let (n_rows, n_cols) = (tensor("dequantized").shape()[0], tensor("dequantized").shape()[1]);
        let packed = tensor("weight_packed").data().to_vec();
        let scales = bf16s(tensor("weight_scale").data());
        for (at, expect) in expect.iter().enumerate() {
            let nibble = if at % 2 == 0 { packed[at / 2] & 15 } else { packed[at / 2] >> 4 };
            let got = dequantized_bf16(nibble, scales[at / 32]);
            assert!(same(got, *expect), "{stem} weight {at}: {got} for {expect}");
        }
        let data = MatrixData::Int4 { packed: packed.into(), scales: scales.into() };
        columns_equal(&Matrix::new(n_rows, n_cols, data), &expect, stem);
    }
}

/// A product with each unit vector gives the matrix back, on every instruction set present.
fn columns_equal(w: &Matrix, expect: &[bf16], stem: &str) {
    for cpu in Isa::ALL.iter().filter_map(|&isa| Cpu::with_isa(isa, 1)) {
        let mut row = vec![0.0f32; w.n_cols()];
        for n in 0..w.n_rows() {
            w.row(n, &mut row);
            for (k, value) in row.iter().enumerate() {
                let expect = expect[n * w.n_cols() + k];
                assert!(same(bf16::from_f32(*value), expect), "{stem} row {n} column {k}");
            }
            if !row.iter().all(|v| v.is_finite()) {
                continue;
            }
            let k = n % w.n_cols();
            let mut unit = vec![0.0f32; w.n_cols()];
            unit[k] = 1.0;
            let mut out = vec![0.0f32; w.n_rows()];
            matmul(&cpu, Rows::f32(&unit, w.n_cols()), w, &mut out);
            // Zero times a weight may leave a zero of the other sign.
            assert!(out[n] == row[k] || !out[n].is_finite(), "{stem} on {}", cpu.isa().name());
        }
    }
}
