//! Weight matrices as files hold them, and the one re-encoding made at load.

use crate::map::MappedFile;
use crate::reference::{stored_width, weight_stride};
use crate::{GROUP, quant};
use half::bf16;
use std::ops::Range;
use std::sync::Arc;

/// Elements in memory of their own or inside a mapped file; clones share them.
#[derive(Clone)]
pub enum Buffer<T> {
    /// Owned elements (anonymous memory).
    Owned(Arc<Vec<T>>),
    /// A part of a mapped file (page cache).
    Mapped(MappedPart),
}

/// A byte range of a mapped file; in a [`Buffer`] aligned for its element type.
#[derive(Clone)]
pub struct MappedPart {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedPart {
    /// The bytes `range` of `file`.
    pub fn new(file: &Arc<MappedFile>, range: Range<usize>) -> Self {
        MappedPart { file: Arc::clone(file), range }
    }

    /// The file.
    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// The bytes of it.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Whether its last page is in memory, which stands for all: what reads far ahead by itself comes from the front.
    pub fn is_resident(&self) -> bool {
        self.range.is_empty() || self.file.is_resident(self.range.end - 1)
    }
}

/// Plain element types that a file's bytes can be read as.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl Element for u8 {}
impl Element for i8 {}
impl Element for f32 {}
impl Element for bf16 {}

impl<T: Element> Buffer<T> {
    /// The bytes of `range` of `file`, in place where their alignment allows it, else copied.
    ///
    /// # Panics
    /// If the range is outside the file or not a whole number of elements.
    pub fn mapped(file: &Arc<MappedFile>, range: Range<usize>) -> Self {
        let bytes = &file.bytes()[range.clone()];
        match bytemuck::try_cast_slice::<u8, T>(bytes) {
            Ok(_) => Buffer::Mapped(MappedPart::new(file, range)),
            Err(_) => {
                let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
                bytemuck::cast_slice_mut::<T, u8>(&mut elements).copy_from_slice(bytes);
                Buffer::from(elements)
            }
        }
    }

    /// The elements, in the order of the file or vector.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Buffer::Owned(elements) => elements,
            Buffer::Mapped(part) => bytemuck::cast_slice(&part.file.bytes()[part.range.clone()]),
        }
    }

    /// Where it lies, if in a mapped file.
    pub fn mapped_part(&self) -> Option<&MappedPart> {
        match self {
            Buffer::Owned(_) => None,
            Buffer::Mapped(part) => Some(part),
        }
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Buffer::Owned(Arc::new(elements))
    }
}

/// The elements of a [`Matrix`] [N, K], row by row, in the form they are stored in.
#[derive(Clone)]
pub enum MatrixData {
    /// `f32` [N, K].
    F32(Buffer<f32>),
    /// BF16 [N, K].
    Bf16(Buffer<bf16>),
    /// 8-bit codes `[N, stride]` ([`weight_stride`] of K) in stored order ([`crate::reference::stored_position`]), BF16
    /// scales [N, K/32]; a form of this program's own.
    Int8 {
        /// Codes in -127..=127, zeros past K.
        codes: Buffer<i8>,
        /// One scale a group of 32 columns: a weight is code times scale.
        scales: Buffer<bf16>,
    },
    /// INT4 as compressed-tensors `pack-quantized` has it: two nibbles a byte [N, K/2] (value + 8, the lower column
    /// in the low one), BF16 scales [N, K/32].
    Int4 {
        /// Packed nibbles, as the file has them (its I32 words read as bytes, little-endian).
        packed: Buffer<u8>,
        /// One scale a group of 32 columns: a weight is (nibble - 8) times scale.
        scales: Buffer<bf16>,
    },
}

/// A weight matrix W [N, K] of `y = W x`.
#[derive(Clone)]
pub struct Matrix {
    n_rows: usize,
    n_cols: usize,
    data: MatrixData,
}

impl Matrix {
    /// Wrap `data` as an [`n_rows`, `n_cols`] matrix.
    ///
    /// # Panics
    /// Unless the lengths are those of such a matrix, K a multiple of 32 in the 8-bit and INT4 forms.
    pub fn new(n_rows: usize, n_cols: usize, data: MatrixData) -> Self {
        let n = n_rows * n_cols;
        match &data {
            MatrixData::F32(w) => assert_eq!(w.as_slice().len(), n),
            MatrixData::Bf16(w) => assert_eq!(w.as_slice().len(), n),
            MatrixData::Int8 { codes, scales } => {
                assert_eq!(n_cols % GROUP, 0);
                let stride = weight_stride(n_cols);
                assert_eq!((codes.as_slice().len(), scales.as_slice().len()), (n_rows * stride, n / GROUP));
            }
            MatrixData::Int4 { packed, scales } => {
                assert_eq!(n_cols % GROUP, 0);
                assert_eq!((packed.as_slice().len(), scales.as_slice().len()), (n / 2, n / GROUP));
            }
        }
        Matrix { n_rows, n_cols, data }
    }

    /// An `f32` matrix of its own, `values` [N, K] row by row.
    ///
    /// # Panics
    /// If `values` has another length.
    pub fn from_f32(n_rows: usize, n_cols: usize, values: Vec<f32>) -> Self {
        Matrix::new(n_rows, n_cols, MatrixData::F32(values.into()))
    }

    /// N.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// K.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The elements.
    pub fn data(&self) -> &MatrixData {
        &self.data
    }

    /// Whether products may take 8-bit activations ([`crate::matmul::Rows::Q8`]).
    pub fn is_integer(&self) -> bool {
        matches!(self.data, MatrixData::Int8 { .. } | MatrixData::Int4 { .. })
    }

    /// Bytes that a pass over the whole matrix reads, scales included, without what lies between rows ([`weight_stride`]).
    pub fn bytes(&self) -> usize {
        let n = self.n_rows * self.n_cols;
        match self.data {
            MatrixData::F32(_) => n * 4,
            MatrixData::Bf16(_) => n * 2,
            MatrixData::Int8 { .. } => self.n_rows * stored_width(self.n_cols) + n / GROUP * 2,
            MatrixData::Int4 { .. } => n / 2 + n / GROUP * 2,
        }
    }

    /// Name of the storage form, for reports: `f32`, `bf16`, `int8-g32` or `int4-g32`.
    pub fn form_name(&self) -> &'static str {
        match self.data {
            MatrixData::F32(_) => "f32",
            MatrixData::Bf16(_) => "bf16",
            MatrixData::Int8 { .. } => "int8-g32",
            MatrixData::Int4 { .. } => "int4-g32",
        }
    }

    /// The parts of mapped files that hold it, elements before scales; none of what is in memory of its own.
    pub fn mapped_parts(&self) -> impl Iterator<Item = &MappedPart> {
        let parts = match &self.data {
            MatrixData::F32(w) => [w.mapped_part(), None],
            MatrixData::Bf16(w) => [w.mapped_part(), None],
            MatrixData::Int8 { codes, scales } => [codes.mapped_part(), scales.mapped_part()],
            MatrixData::Int4 { packed, scales } => [packed.mapped_part(), scales.mapped_part()],
        };
        parts.into_iter().flatten()
    }

    /// Row `row_idx` as `f32` into `out` `[K]`: the weights' values without rounding.
    pub fn row(&self, row_idx: usize, out: &mut [f32]) {
        quant::dequantize_rows(crate::cpu::Isa::Scalar, self, row_idx..row_idx + 1, out);
    }

    /// The same matrix in 8 bits: per group of 32 columns a scale of max|w|/127, rounded up to BF16, and codes
    /// rounded to the nearest, ties to even.
    ///
    /// # Panics
    /// If K is not a multiple of 32.
    pub fn to_int8(&self, cpu: &crate::cpu::Cpu) -> Matrix {
        quant::encode_int8(cpu, self)
    }
}
