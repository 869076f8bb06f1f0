//! Checks of stored values: scales and weights finite, stored shapes true.

use super::{Checkpoint, CheckpointError, Dtype, Tensor};
use half::bf16;

/// What a scan of a float tensor found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Number of NaN or infinite elements.
    pub n_not_finite: usize,
    /// Index of the first of them, in elements.
    pub first: Option<usize>,
    /// Number of negative elements (minus zero included).
    pub n_negative: usize,
}

/// Scan the little-endian bytes of a BF16 or F32 tensor; other dtypes hold no floats and give an empty scan.
pub fn scan(dtype: Dtype, bytes: &[u8]) -> Scan {
    match dtype {
        Dtype::BF16 => scan_bits(bytes.as_chunks::<2>().0, |b| u32::from(u16::from_le_bytes(*b)) << 16),
        Dtype::F32 => scan_bits(bytes.as_chunks::<4>().0, |b| u32::from_le_bytes(*b)),
        _ => Scan::default(),
    }
}

/// Scan elements as the bits of an f32; the common clean block takes one pass without branches.
fn scan_bits<T>(elements: &[T], bits: impl Fn(&T) -> u32) -> Scan {
    const BLOCK: usize = 1024;
    const EXPONENT: u32 = 0x7f80_0000;
    let mut result = Scan::default();
    for (block_idx, block) in elements.chunks(BLOCK).enumerate() {
        let (mut n_not_finite, mut n_negative) = (0u32, 0u32);
        for element in block {
            let bits = bits(element);
            n_not_finite += u32::from(bits & EXPONENT == EXPONENT);
            n_negative += bits >> 31;
        }
        if n_not_finite > 0 && result.first.is_none() {
            let in_block = block.iter().position(|e| bits(e) & EXPONENT == EXPONENT);
            result.first = in_block.map(|i| block_idx * BLOCK + i);
        }
        result.n_not_finite += n_not_finite as usize;
        result.n_negative += n_negative as usize;
    }
    result
}

impl Checkpoint {
    /// Check the values of the matrix `stem` that say how to read it: the scales of a packed matrix must be finite
    /// and its `weight_shape` must be that of its packed words. `stem` is the name without `.weight...`; a plain
    /// matrix, or none of that name, passes.
    ///
    /// # Errors
    /// [`CheckpointError`] for the first thing that is wrong, or that a packed matrix lacks its scales or shape.
    pub fn check_matrix(&self, stem: &str) -> Result<(), CheckpointError> {
        if self.config.quantization.is_none() || self.tensor(&format!("{stem}.weight_packed")).is_none() {
            return Ok(());
        }
        self.check_finite(&format!("{stem}.weight_scale"))?;
        self.check_stored_shape(&format!("{stem}.weight_shape"))
    }

    /// Check the values of every tensor the model uses, in the order of the layers: what explains logits that are not
    /// finite. Reads all of them.
    ///
    /// # Errors
    /// [`CheckpointError`] for the first thing that is wrong.
    pub fn check_values(&self) -> Result<(), CheckpointError> {
        for spec in crate::layout::expected(&self.config) {
            match spec.name.ends_with(".weight_shape") {
                true => self.check_stored_shape(&spec.name)?,
                false => self.check_finite(&spec.name)?,
            }
        }
        Ok(())
    }

    /// Check that every element of the BF16 or F32 tensor `name` is finite; other dtypes pass.
    ///
    /// # Errors
    /// [`CheckpointError`] for the first element that is not, or that there is no such tensor.
    pub fn check_finite(&self, name: &str) -> Result<(), CheckpointError> {
        let tensor = self.require(name)?;
        let Some(first) = scan(tensor.dtype, tensor.bytes()).first else { return Ok(()) };
        let found = format!("{} at {}", element(&tensor, first), position(tensor.shape, first));
        Err(self.bad_value(name, &tensor, found, "finite numbers; download the file again"))
    }

    /// Check that the `weight_shape` tensor `name` says what its packed matrix's own shape says.
    ///
    /// # Errors
    /// [`CheckpointError`] with the stored and the true shape, or that there is no such tensor.
    pub fn check_stored_shape(&self, name: &str) -> Result<(), CheckpointError> {
        self.check_stored_shape_in(name, self.require(name)?.bytes())
    }

    /// The same, with the tensor's bytes read by the caller.
    pub(crate) fn check_stored_shape_in(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let tensor = self.require(name)?;
        let stem = name.strip_suffix(".weight_shape").unwrap_or(name);
        let packed = self.require(&format!("{stem}.weight_packed"))?;
        let expected: Vec<i64> = match packed.shape {
            [n_out, n_words] => vec![*n_out as i64, (*n_words * crate::layout::CODES_PER_WORD) as i64],
            _ => Vec::new(),
        };
        let found = integers(tensor.dtype, bytes);
        if found == expected {
            return Ok(());
        }
        Err(self.bad_value(
            name,
            &tensor,
            format!("{found:?}"),
            &format!("{expected:?} by the packed matrix"),
        ))
    }

    pub(crate) fn require(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        self.tensor(name).ok_or_else(|| CheckpointError::MissingTensor {
            dir: self.dir().to_path_buf(),
            tensor: name.to_owned(),
            expected: "a tensor of the model".into(),
            hint: String::new(),
        })
    }

    fn bad_value(&self, name: &str, tensor: &Tensor<'_>, found: String, expected: &str) -> CheckpointError {
        CheckpointError::Value {
            path: tensor.file.path().to_path_buf(),
            tensor: name.to_owned(),
            found,
            expected: expected.to_owned(),
        }
    }
}

/// The elements of an I32 or I64 tensor's bytes; nothing for other dtypes.
fn integers(dtype: Dtype, bytes: &[u8]) -> Vec<i64> {
    match dtype {
        Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        _ => Vec::new(),
    }
}

/// Element `i` of a BF16 or F32 tensor.
fn element(tensor: &Tensor<'_>, i: usize) -> f32 {
    let bytes = tensor.bytes();
    let at = |width: usize| bytes.get(i * width..(i + 1) * width);
    match tensor.dtype {
        Dtype::BF16 => at(2).map_or(0.0, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        _ => at(4).map_or(0.0, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
    }
}

/// The index of flat element `i`, as `[row, column]`.
pub(crate) fn position(shape: &[usize], mut i: usize) -> String {
    let mut index: Vec<usize> = Vec::new();
    for &size in shape.iter().rev() {
        let size = size.max(1);
        index.insert(0, i % size);
        i /= size;
    }
    format!("{index:?}")
}
