//! Here is an HTTP request, stream the answer.
