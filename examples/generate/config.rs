//! `config.json` → a [`Description`]: the few numbers that a decoder-only transformer is made of.

use std::ops::RangeInclusive;

use serde_json::Value;
use wgmarlin::matmul::Activation;

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
    /// Embeddings are multiplied by this.
    pub embed_scale: f32,
    /// Factor of the attention scores.
    pub attention_scale: f32,
    /// Attention scores are bent into ± this.
    pub attention_cap: Option<f32>,
    /// Logits are bent into ± this.
    pub logit_cap: Option<f32>,
    /// For each layer the number of keys that a query sees, if not all.
    pub windows: Vec<Option<usize>>,
    /// Of the gated MLP.
    pub activation: Activation,
    /// Norms multiply by 1 + weight.
    pub unit_offset: bool,
    /// What attention and MLP give is normalised, too, before it is added to the stream.
    pub post_norms: bool,
    /// Every two heads are one of differential attention.
    pub differential: bool,
    /// The output projection is the embedding table.
    pub tied: bool,
    /// The attention projections have biases.
    pub attention_bias: bool,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// What a configuration leaves unsaid because the architecture's name says it.
struct Architecture {
    name: &'static str,
    unit_offset: bool,
    post_norms: bool,
    scaled_embedding: bool,
    differential: bool,
    /// The configuration has attention's scale and both soft-caps.
    soft_caps: bool,
    windows: Windows,
    /// Where the activation is named, and its default.
    activation: (&'static str, &'static str),
    tied: bool,
    /// `None`: hidden size / heads.
    head_dim: Option<usize>,
    norm_eps: f64,
}

/// Which layers have a sliding window.
#[derive(Clone, Copy, PartialEq)]
enum Windows {
    None,
    All,
    /// As `layer_types` says, by default every other, from the first.
    ByLayer,
}

const LLAMA: Architecture = Architecture {
    name: "LlamaForCausalLM",
    unit_offset: false,
    post_norms: false,
    scaled_embedding: false,
    differential: false,
    soft_caps: false,
    windows: Windows::None,
    activation: ("hidden_act", "silu"),
    tied: false,
    head_dim: None,
    norm_eps: 1e-6,
};

/// The architectures that [`crate::model`] can run, with the defaults of transformers' configurations.
const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "MistralForCausalLM", windows: Windows::All, ..LLAMA },
    Architecture {
        name: "Gemma2ForCausalLM",
        unit_offset: true,
        post_norms: true,
        scaled_embedding: true,
        soft_caps: true,
        windows: Windows::ByLayer,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        tied: true,
        head_dim: Some(256),
        ..LLAMA
    },
    Architecture { name: "DiffLlamaForCausalLM", differential: true, norm_eps: 1e-5, ..LLAMA },
];

const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
];

impl Description {
    /// Reads the text of a `config.json`.
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
        let head_dim =
            config.size("head_dim", Some(architecture.head_dim.unwrap_or(hidden / heads)), 8..=256)?;
        if architecture.head_dim.is_none() && config.0["head_dim"].is_null() {
            divides("hidden_size", hidden, "num_attention_heads", heads)?;
        }
        divides("num_attention_heads", heads, "num_key_value_heads", kv_heads)?;
        divides("hidden_size", hidden, "the kernels' vector width", 8)?;
        divides("head_dim", head_dim, "the kernels' vector width", 8)?;
        if architecture.differential {
            divides("num_attention_heads", heads, "the two of a difference", 2)?;
            divides("num_key_value_heads", kv_heads, "the two of a difference", 2)?;
            // The attention kernels see the two as one of twice the width.
            config.size("head_dim", Some(head_dim), 8..=128)?;
        }
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
        for name in ["mlp_bias", "use_bidirectional_attention"] {
            if config.flag(name, false)? {
                return Err(Error::invalid(name, "true is not supported"));
            }
        }
        let query_scalar = match architecture.soft_caps {
            true => config.real("query_pre_attn_scalar", 256.0, 1e-6..=1e12)?,
            false => head_dim as f64,
        };
        let cap = |name: &str, default: f64| -> Result<Option<f32>> {
            if !architecture.soft_caps {
                return Ok(None);
            }
            let cap = config.unless_null(name, |c| c.real(name, default, 1e-3..=1e6))?;
            Ok(cap.map(|cap| cap as f32))
        };
        let top_level_theta = config.real("rope_theta", 10_000.0, 1.0..=1e12)?;
        Ok(Description {
            architecture: architecture.name,
            layers,
            hidden,
            ffn,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context: config.size("max_position_embeddings", Some(2048), 1..=1 << 24)?,
            norm_eps: config.real("rms_norm_eps", architecture.norm_eps, 0.0..=0.1)? as f32,
            rope_theta: nested[0].real("rope_theta", top_level_theta, 1.0..=1e12)?,
            embed_scale: if architecture.scaled_embedding { (hidden as f32).sqrt() } else { 1.0 },
            attention_scale: (1.0 / query_scalar.sqrt()) as f32,
            attention_cap: cap("attn_logit_softcapping", 50.0)?,
            logit_cap: cap("final_logit_softcapping", 30.0)?,
            windows: config.windows(architecture.windows, layers)?,
            activation: config.activation(architecture.activation)?,
            unit_offset: architecture.unit_offset,
            post_norms: architecture.post_norms,
            differential: architecture.differential,
            tied: config.flag("tie_word_embeddings", architecture.tied)?,
            attention_bias: config.flag("attention_bias", false)?,
            eos,
        })
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// KV heads, and the width of their keys and values. For differential attention two keys, or values, are one.
    pub fn kv_shape(&self) -> [usize; 3] {
        let together = if self.differential { 2 } else { 1 };
        let width = self.head_dim * together;
        [self.kv_heads / together, width, width]
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
    fn architecture(&self) -> Result<&'static Architecture> {
        let value = &self.0["architectures"];
        let named: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ARCHITECTURES.iter().find(|a| named.contains(&a.name)).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
            let known = known.join(", ");
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

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match &self.0[name] {
            Value::Null => Ok(default),
            Value::Bool(flag) => Ok(*flag),
            other => Err(Error::invalid(name, format!("{other} is neither true nor false"))),
        }
    }

    /// What is read, or `None` for a member that is there and null: some configurations turn features off so.
    fn unless_null<T>(&self, name: &str, read: impl FnOnce(&Fields) -> Result<T>) -> Result<Option<T>> {
        if self.0.get(name).is_some_and(Value::is_null) {
            return Ok(None);
        }
        read(self).map(Some)
    }

    fn windows(&self, which: Windows, layers: usize) -> Result<Vec<Option<usize>>> {
        const WIDTH: &str = "sliding_window";
        if which == Windows::None {
            return Ok(vec![None; layers]);
        }
        let window = self.unless_null(WIDTH, |c| c.size(WIDTH, Some(4096), 1..=1 << 30))?;
        let types = match &self.0["layer_types"] {
            _ if which == Windows::All => return Ok(vec![window; layers]),
            Value::Null => return Ok((0..layers).map(|layer| window.filter(|_| layer % 2 == 0)).collect()),
            types => types,
        };
        let wrong = |why: String| Error::invalid("layer_types", why);
        let list = types.as_array().filter(|list| list.len() == layers);
        let list =
            list.ok_or_else(|| wrong(format!("{types} is no list of {layers}, one for each layer")))?;
        let of = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") if window.is_none() => Err(wrong(format!("{kind} without {WIDTH}"))),
            Some("sliding_attention") => Ok(window),
            _ => Err(wrong(format!("{kind} is not supported, only full_attention, sliding_attention"))),
        };
        list.iter().map(of).collect()
    }

    fn activation(&self, (name, default): (&str, &str)) -> Result<Activation> {
        let value = match &self.0[name] {
            Value::Null => Some(default),
            value => value.as_str(),
        };
        ACTIVATIONS.iter().find(|(known, _)| Some(*known) == value).map(|(_, a)| *a).ok_or_else(|| {
            let known: Vec<&str> = ACTIVATIONS.iter().map(|(known, _)| *known).collect();
            Error::invalid(name, format!("{} is not supported, only {}", self.0[name], known.join(", ")))
        })
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
