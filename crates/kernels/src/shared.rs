//! Memory that tasks use: slices written by several at once, each in its own part, and buffers a thread keeps.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that parallel tasks cut disjoint parts from.
pub(crate) struct Shared<'a, T> {
    ptr: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes only through `part`, whose contract is that parts in use at the same time are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Shared { ptr: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion; disjoint by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.end - range.start) }
    }
}

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread when it is dropped, so that tasks do not allocate.
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// A buffer of this thread's that is not in use.
    pub(crate) fn take() -> Self {
        Scratch(FREE.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// Its first `n` elements; what they hold is left from other tasks.
    pub(crate) fn first(&mut self, n: usize) -> &mut [f32] {
        if self.0.len() < n {
            self.0.resize(n, 0.0);
        }
        &mut self.0[..n]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no list any more; the buffer then goes with it.
        let _ = FREE.try_with(|free| free.borrow_mut().push(buffer));
    }
}
