//! What can go wrong, in words for the person at the terminal.

use std::path::Path;

/// The example's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the model directory is missing, unreadable or malformed.
    #[error("{path}: {why}")]
    File { path: String, why: String },

    /// Something named (a tensor, a number of the configuration, an argument) is not what it has to be.
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },

    #[error(transparent)]
    Gpu(#[from] wgmarlin::Error),

    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn file(path: &Path, why: impl ToString) -> Error {
        Error::File { path: path.display().to_string(), why: why.to_string() }
    }

    pub fn invalid(what: impl Into<String>, why: impl ToString) -> Error {
        Error::Invalid { what: what.into(), why: why.to_string() }
    }
}
