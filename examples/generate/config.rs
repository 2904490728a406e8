//! `config.json` → a [`Description`]: the few numbers that a decoder-only transformer is made of.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::error::{Error, Result};

/// A model as data. Everything in it is validated: sizes are positive, divide as they have to, and are small
/// enough that no product of them overflows.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub architecture: &'static str,
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated MLP.
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context: usize,
    pub norm_eps: f32,
    pub rope_theta: f64,
    /// The output projection is the embedding table.
    pub tied: bool,
    /// The attention projections have biases.
    pub attention_bias: bool,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// The architectures that [`crate::model`] can run.
const ARCHITECTURES: &[&str] = &["LlamaForCausalLM"];

impl Description {
    /// Reads the text of a `config.json`; the defaults are those of transformers' `LlamaConfig`.
    ///
    /// # Errors
    /// Names the field, what it is and what it has to be.
    pub fn parse(json: &str) -> Result<Description> {
        let config = Fields(serde_json::from_str(json).map_err(|e| Error::invalid("not valid JSON", e))?);
        // First: another architecture need not have the fields that are asked for below.
        let architecture = config.architecture()?;
        let layers = config.size("num_hidden_layers", None, 1..=1024)?;
        let hidden = config.size("hidden_size", None, 8..=1 << 16)?;
        let ffn = config.size("intermediate_size", None, 1..=1 << 20)?;
        let heads = config.size("num_attention_heads", None, 1..=4096)?;
        let kv_heads = config.size("num_key_value_heads", Some(heads), 1..=4096)?;
        let head_dim = config.size("head_dim", Some(hidden / heads), 8..=256)?;
        if config.0["head_dim"].is_null() {
            divides("hidden_size", hidden, "num_attention_heads", heads)?;
        }
        divides("num_attention_heads", heads, "num_key_value_heads", kv_heads)?;
        divides("hidden_size", hidden, "the kernels' vector width", 8)?;
        divides("head_dim", head_dim, "the kernels' vector width", 8)?;
        let vocab = config.size("vocab_size", None, 2..=1 << 21)?;
        let eos = match &config.0["eos_token_id"] {
            Value::Null => Vec::new(),
            Value::Array(ids) => ids.iter().map(|id| eos(id, vocab)).collect::<Result<_>>()?,
            id => vec![eos(id, vocab)?],
        };
        // transformers 5 nests what earlier versions had at the top level.
        let nested = ["rope_parameters", "rope_scaling"].map(|name| Fields(config.0[name].clone()));
        for rope in &nested {
            rope.one_of("rope_type", &["default"])?;
            rope.one_of("type", &["default"])?;
        }
        config.one_of("hidden_act", &["silu", "swish"])?;
        if config.flag("mlp_bias")? {
            return Err(Error::invalid("mlp_bias", "true is not supported"));
        }
        let top_level_theta = config.real("rope_theta", 10_000.0, 1.0..=1e12)?;
        Ok(Description {
            architecture,
            layers,
            hidden,
            ffn,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context: config.size("max_position_embeddings", Some(2048), 1..=1 << 24)?,
            norm_eps: config.real("rms_norm_eps", 1e-6, 0.0..=0.1)? as f32,
            rope_theta: nested[0].real("rope_theta", top_level_theta, 1.0..=1e12)?,
            tied: config.flag("tie_word_embeddings")?,
            attention_bias: config.flag("attention_bias")?,
            eos,
        })
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// A token id that is inside the vocabulary.
pub fn token<T: TryInto<u32> + Copy + std::fmt::Display>(what: &str, id: T, vocab: usize) -> Result<u32> {
    id.try_into().ok().filter(|&id: &u32| (id as usize) < vocab).ok_or_else(|| {
        Error::invalid(
            what,
            format!("token id {id} is out of range: the model's vocabulary has {vocab} tokens"),
        )
    })
}

fn eos(id: &Value, vocab: usize) -> Result<u32> {
    let number = id.as_u64().ok_or_else(|| Error::invalid("eos_token_id", format!("{id} is no token id")))?;
    token("eos_token_id", number, vocab)
}

fn divides(name: &str, value: usize, by: &str, divisor: usize) -> Result<()> {
    if value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(Error::invalid(name, format!("{value} is not a multiple of {by} ({divisor})")))
}

/// The members of a JSON object, each checked as it is read. A member that is absent or null has its default.
struct Fields(Value);

impl Fields {
    fn architecture(&self) -> Result<&'static str> {
        let value = &self.0["architectures"];
        let named: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ARCHITECTURES.iter().copied().find(|a| named.contains(a)).ok_or_else(|| {
            let known = ARCHITECTURES.join(", ");
            let why = format!("unknown architecture {value}; this example runs {known}");
            Error::invalid("architectures", why)
        })
    }

    fn size(&self, name: &str, default: Option<usize>, range: RangeInclusive<usize>) -> Result<usize> {
        let value = match &self.0[name] {
            Value::Null => default,
            value => value.as_u64().and_then(|v| usize::try_from(v).ok()),
        };
        value.filter(|v| range.contains(v)).ok_or_else(|| {
            let (from, to) = range.into_inner();
            let found = value.map_or_else(|| self.0[name].to_string(), |v| v.to_string());
            Error::invalid(name, format!("{found} is not a whole number within {from}..={to}"))
        })
    }

    fn real(&self, name: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        let value = match &self.0[name] {
            Value::Null => Some(default),
            value => value.as_f64(),
        };
        value.filter(|v| range.contains(v)).ok_or_else(|| {
            let why = format!("{} is not within {}..={}", self.0[name], range.start(), range.end());
            Error::invalid(name, why)
        })
    }

    /// Absent: false.
    fn flag(&self, name: &str) -> Result<bool> {
        match &self.0[name] {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            other => Err(Error::invalid(name, format!("{other} is neither true nor false"))),
        }
    }

    /// Absent: the first of `known`.
    fn one_of(&self, name: &str, known: &[&str]) -> Result<()> {
        match &self.0[name] {
            Value::Null => Ok(()),
            Value::String(text) if known.contains(&text.as_str()) => Ok(()),
            other => {
                Err(Error::invalid(name, format!("{other} is not supported, only {}", known.join(", "))))
            }
        }
    }
}
