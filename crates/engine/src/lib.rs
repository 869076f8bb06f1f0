//! Here are sequences, who goes next?
