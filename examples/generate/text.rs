//! The tokenizer, and turning a stream of tokens into a stream of text.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::checkpoint::read_text;
use crate::config::token;
use crate::error::{Error, Result};

pub struct Text(Tokenizer);

impl Text {
    /// Reads the `tokenizer.json` of a model's directory or, where that has none, of the directory above: several
    /// models may share one.
    pub fn open(dir: &Path) -> Result<Text> {
        const NAME: &str = "tokenizer.json";
        let (own, shared) = (dir.join(NAME), dir.join("..").join(NAME));
        let path = if !own.exists() && shared.exists() { shared } else { own };
        let json = read_text(&path)?;
        let mut tokenizer: Tokenizer = json.parse().map_err(|e: tokenizers::Error| Error::file(&path, e))?;
        // What a file may ask for batches of a training; a prompt is to be seen as it is.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::file(&path, e))?;
        Ok(Text(tokenizer))
    }

    /// The ids of a prompt, each inside the model's vocabulary; at least one. `whole` puts those around it that begin or end a text.
    pub fn encode(&self, prompt: &str, whole: bool, vocab: usize) -> Result<Vec<u32>> {
        let encoding = self.0.encode(prompt, whole).map_err(|e| Error::invalid("prompt", e))?;
        let ids: Vec<u32> =
            encoding.get_ids().iter().map(|&id| token("prompt", id, vocab)).collect::<Result<_>>()?;
        if ids.is_empty() {
            return Err(Error::invalid("prompt", "has no tokens; give at least one character"));
        }
        Ok(ids)
    }

    /// The text of some ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.0.decode(ids, true).map_err(|e| Error::invalid("tokenizer", e))
    }
}

/// Decodes token by token. A character may span tokens and a token's text may depend on the one before it
/// (leading spaces), so a short window is decoded twice, with and without the new tokens, and only the
/// difference is given out, once it ends on a whole character.
pub struct Stream<'a> {
    text: &'a Text,
    /// What is given out already, then what is not yet.
    window: Vec<u32>,
    /// Number of tokens of the window that are given out.
    shown: usize,
}

impl<'a> Stream<'a> {
    pub fn new(text: &'a Text, prompt: &[u32]) -> Stream<'a> {
        Stream { text, window: prompt.to_vec(), shown: prompt.len() }
    }

    /// The text that this token completes; often empty in the middle of a character.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        self.take(false)
    }

    /// What is left, even if it ends in the middle of a character.
    pub fn finish(mut self) -> Result<String> {
        self.take(true)
    }

    fn take(&mut self, all: bool) -> Result<String> {
        let before = self.text.decode(&self.window[..self.shown])?;
        let after = self.text.decode(&self.window)?;
        if !all && after.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        // If the earlier text itself ended inside a character, that character changes now: the common part counts.
        let fresh = after.strip_prefix(before.trim_end_matches(char::REPLACEMENT_CHARACTER)).unwrap_or("");
        let fresh = fresh.to_string();
        self.window.drain(..self.shown);
        self.shown = self.window.len();
        Ok(fresh)
    }
}
