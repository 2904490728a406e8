//! What all attention kernels can do beyond softmax(scale·Q·Kᵀ)·V.

use crate::error::{Error, Result};

/// Which keys a query sees, and what happens to its scores: s = scale·q·k, then s = cap·tanh(s / cap).
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Factor of the scores, usually 1/√D; finite.
    pub scale: f32,
    /// Query i of Sq sees keys 0..=i + len − Sq: the last query meets the last key of its sequence. Without, every
    /// query sees all.
    pub causal: bool,
    /// A causal query sees this many keys at most, the last of them its own ("sliding window", Beltagy et al.,
    /// "Longformer", 2020). At least 1.
    pub window: Option<usize>,
    /// Scores are bent into ±cap (Gemma 2, 2024); positive, finite.
    pub soft_cap: Option<f32>,
}

impl Options {
    /// The usual mask of a language model.
    pub const fn causal(scale: f32) -> Options {
        Options { scale, causal: true, window: None, soft_cap: None }
    }

    /// Every query sees every key.
    pub const fn full(scale: f32) -> Options {
        Options { causal: false, ..Options::causal(scale) }
    }

    pub(super) fn check(&self, kernel: &'static str) -> Result<()> {
        if !self.scale.is_finite() {
            return Err(Error::value(kernel, "scale", self.scale, "finite"));
        }
        match self.window {
            Some(0) => return Err(Error::value(kernel, "window", 0, "at least 1")),
            Some(window) if !self.causal => {
                return Err(Error::value(kernel, "window", window, "None without a causal mask"));
            }
            _ => {}
        }
        match self.soft_cap {
            Some(cap) if !(cap.is_finite() && cap > 0.0) => {
                Err(Error::value(kernel, "soft_cap", cap, "positive and finite"))
            }
            _ => Ok(()),
        }
    }

    /// The window as shaders have it, over at most `kv_len` keys: 0 for none.
    pub(super) fn window_word(&self, kv_len: u32) -> u32 {
        self.window.and_then(|n| u32::try_from(n).ok()).filter(|&n| n < kv_len).unwrap_or(0)
    }
}
