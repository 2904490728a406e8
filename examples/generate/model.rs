//! A decoder-only transformer as its [`Description`] says on the GPU: its weights, its KV cache, and the record of one
//! forward pass.

use std::borrow::Cow;

use half::f16;
use wgmarlin::attention::{self, Options};
use wgmarlin::attention_diff::{Difference, Lambda, Scratch, SubNorm};
use wgmarlin::elementwise::{self, Elementwise, Op};
use wgmarlin::embed::{self, Embed};
use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
use wgmarlin::matmul::{self, GateUp, Linear, Weight};
use wgmarlin::norm::{self, RmsNorm};
use wgmarlin::rope::{self, Pairing, Rope};
use wgmarlin::{DType, Gpu, Recorder, Tensor};

use crate::cache::{Cache, Keys, Kv, Mixing};
use crate::checkpoint::Checkpoint;
use crate::config::Description;
use crate::error::{Error, Result};

/// How weights and activations are stored.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// Of the projections; embeddings and norms are never quantised.
    pub weights: Format,
    pub group: Group,
    pub search: ScaleSearch,
    /// `F32` or `F16`.
    pub activations: DType,
}

/// The weights on the GPU.
pub struct Model {
    pub gpu: Gpu,
    pub description: Description,
    pub precision: Precision,
    /// Bytes of all weights.
    pub bytes: u64,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Weight,
    inv_freq: Tensor,
}

struct Layer {
    attention_norm: Tensor,
    q: Projection,
    k: Projection,
    v: Projection,
    o: Projection,
    /// λ's vectors q1, k1, q2, k2, and its initial value.
    lambda: Option<([Tensor; 4], f32)>,
    /// Behind attention.
    mixed_norm: Option<Tensor>,
    mlp_norm: Tensor,
    /// Behind the MLP.
    ffn_norm: Option<Tensor>,
    /// Rows of gate and up in turn.
    gate_up: Weight,
    down: Weight,
}

struct Projection {
    weight: Weight,
    bias: Option<Tensor>,
}

/// The activations of `rows` tokens.
pub struct Activations {
    /// U32 \[rows\]: what to embed.
    pub ids: Tensor,
    /// U32 \[rows\]: where in the sequence.
    pub positions: Tensor,
    /// The mask of the tree that the tokens are, unless they follow one another: [`Options::tree`].
    pub tree: Option<Tensor>,
    /// \[rows, hidden\]: the last norm's output, which the head reads.
    pub normed: Tensor,
    x: Tensor,
    update: Tensor,
    q: Tensor,
    /// New keys and values on their way into a cache in blocks.
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    gated: Tensor,
    workspace: Tensor,
    /// Of differential attention: padded queries and results of both softmaxes.
    halves: Option<[Tensor; 2]>,
}

impl Model {
    /// Loads, quantises and uploads; `progress` is called with the number of layers done.
    pub fn load(
        gpu: &Gpu,
        description: Description,
        checkpoint: &Checkpoint,
        precision: Precision,
        progress: impl Fn(usize),
    ) -> Result<Model> {
        let Description { hidden, ffn, vocab, head_dim, heads, kv_heads, tied, .. } = description;
        let (q_width, kv_width) = (description.q_width(), description.kv_width());
        let mut loader = Loader { gpu, checkpoint, precision, bytes: 0 };

        let dense = loader.dense_format();
        const TABLE: &str = "model.embed_tokens.weight";
        let table =
            loader.quantise(TABLE, &checkpoint.floats(TABLE, &[vocab, hidden])?, vocab, hidden, dense)?;
        let embedding = loader.table(&table)?;
        let head = match tied {
            true => loader.upload_packed(&table)?,
            false => {
                const HEAD: &str = "lm_head.weight";
                let values = checkpoint.floats(HEAD, &[vocab, hidden])?;
                loader.upload_packed(&loader.quantise(HEAD, &values, vocab, hidden, dense)?)?
            }
        };
        drop(table);
        let norm = loader.vector("model.norm.weight", hidden)?;
        let mut layers = Vec::with_capacity(description.layers);
        for i in 0..description.layers {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let Description { attention_bias: bias, post_norms, differential, .. } = description;
            // Heads that are two of a difference are put side by side.
            let paired = |heads: usize| differential.then_some(heads);
            // The name of the norm before the MLP is that behind attention where there is such a one.
            let before_mlp =
                if post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
            layers.push(Layer {
                lambda: differential.then(|| loader.lambda(i, head_dim)).transpose()?,
                mixed_norm: loader.vector_if(post_norms, &name("post_attention_layernorm"), hidden)?,
                ffn_norm: loader.vector_if(post_norms, &name("post_feedforward_layernorm"), hidden)?,
                attention_norm: loader.vector(&name("input_layernorm"), hidden)?,
                q: loader.projection(&name("self_attn.q_proj"), [q_width, hidden], bias, paired(heads))?,
                k: loader.projection(
                    &name("self_attn.k_proj"),
                    [kv_width, hidden],
                    bias,
                    paired(kv_heads),
                )?,
                v: loader.projection(
                    &name("self_attn.v_proj"),
                    [kv_width, hidden],
                    bias,
                    paired(kv_heads),
                )?,
                o: loader.projection(&name("self_attn.o_proj"), [hidden, q_width], bias, None)?,
                mlp_norm: loader.vector(&name(before_mlp), hidden)?,
                gate_up: {
                    let gate = loader.pack(&name("mlp.gate_proj"), ffn, hidden)?;
                    let up = loader.pack(&name("mlp.up_proj"), ffn, hidden)?;
                    loader.upload_packed(&PackedMatrix::interleave(&gate, &up)?)?
                },
                down: loader.matrix(&name("mlp.down_proj"), hidden, ffn)?,
            });
            progress(i + 1);
        }
        let inv_freq =
            gpu.tensor(&[head_dim / 2], &rope::inv_freq(head_dim, description.rope_theta as f32))?;
        let bytes = loader.bytes;
        Ok(Model { gpu: gpu.clone(), description, precision, bytes, embedding, layers, norm, head, inv_freq })
    }

    /// Records everything from the token ids in `t`, at its positions, to its `normed`. Keys and values go where `keys`
    /// says.
    pub fn forward(&self, r: &mut Recorder<'_, '_>, t: &Activations, keys: Keys<'_>) -> wgmarlin::Result<()> {
        let d = &self.description;
        let Description { heads, kv_heads, head_dim, norm_eps: eps, unit_offset, activation, .. } = *d;
        let q_heads = t.q.reshape(&[t.ids.len(), heads, head_dim])?;
        let norm = |r: &mut Recorder<'_, '_>, residual, weight| {
            let request = RmsNorm { residual, unit_offset, ..RmsNorm::new(&t.x, weight, &t.normed, eps) };
            norm::record(r, &request)
        };
        let post_norm = |r: &mut Recorder<'_, '_>, weight: &Option<Tensor>| match weight {
            None => Ok(()),
            Some(weight) => {
                let in_place = RmsNorm::new(&t.update, weight, &t.update, eps);
                norm::record(r, &RmsNorm { unit_offset, ..in_place })
            }
        };

        embed::record(r, &Embed { ids: &t.ids, table: &self.embedding, out: &t.x, scale: d.embed_scale })?;
        // Each sublayer's output is added to the stream by the norm that follows it.
        let mut residual = None;
        for (i, layer) in self.layers.iter().enumerate() {
            norm(r, residual, &layer.attention_norm)?;
            layer.q.record(r, &t.normed, &t.q, 0)?;
            let (k, v, k_row) = keys.place(i, (&t.k, &t.v));
            layer.k.record(r, &t.normed, k, k_row)?;
            layer.v.record(r, &t.normed, v, k_row)?;
            rope::record(
                r,
                &Rope {
                    q: &q_heads,
                    k: Some(&k.reshape(&[k.rows(), kv_heads, head_dim])?),
                    k_row,
                    positions: &t.positions,
                    inv_freq: &self.inv_freq,
                    pairing: Pairing::HalfSplit,
                    mscale: 1.0,
                },
            )?;
            let options = Options {
                window: d.windows.get(i).copied().flatten(),
                soft_cap: d.attention_cap,
                tree: t.tree.as_ref(),
                ..Options::causal(d.attention_scale)
            };
            let (q, out, workspace) = (&t.q, &t.mixed, &t.workspace);
            let difference = layer.difference(eps).zip(t.scratch());
            keys.attend(r, d, i, &Mixing { q, k, v, out, options, workspace, difference })?;
            layer.o.record(r, &t.mixed, &t.update, 0)?;
            post_norm(r, &layer.mixed_norm)?;
            norm(r, Some(&t.update), &layer.mlp_norm)?;
            let (a, weight, out) = (&t.normed, &layer.gate_up, &t.gated);
            let request = GateUp { a, weight, out, activation, norm: None };
            matmul::record_gate_up(r, &request)?;
            matmul::record(r, &Linear::new(&t.gated, &layer.down, &t.update))?;
            post_norm(r, &layer.ffn_norm)?;
            residual = Some(&t.update);
        }
        norm(r, residual, &self.norm)
    }

    /// Records the logits \[rows, vocab\] of the tokens in `t`.
    pub fn logits(&self, r: &mut Recorder<'_, '_>, t: &Activations, logits: &Tensor) -> wgmarlin::Result<()> {
        matmul::record(r, &Linear::new(&t.normed, &self.head, logits))?;
        match self.description.logit_cap {
            None => Ok(()),
            Some(cap) => {
                elementwise::record(r, &Elementwise { a: logits, op: Op::SoftCap(cap), out: logits })
            }
        }
    }

    /// An empty cache.
    pub fn cache(&self, kv: Kv, context: usize) -> Result<Cache> {
        Cache::new(&self.gpu, &self.description, kv, self.precision.activations, context)
    }

    /// Room for the activations of `rows` tokens: of one sequence, or of a sequence each, of up to `context`.
    pub fn activations(&self, rows: usize, context: usize) -> Result<Activations> {
        let d = &self.description;
        let alloc = |cols: usize| self.gpu.alloc(self.precision.activations, &[rows, cols]);
        let [kv_heads, width, _] = d.kv_shape();
        let workspace = |sequences: usize, rows: usize| {
            attention::workspace_len(&self.gpu, sequences, rows, d.heads, kv_heads, width, context)
        };
        // A shorter piece of a prompt may split the keys where a longer one does not.
        let pieces = (1..=rows.min(attention::MAX_DECODE)).map(|rows| workspace(1, rows));
        let workspace = pieces.chain([workspace(rows, 1)]).max().unwrap_or(0);
        let halves = match d.differential {
            true => Some([alloc(2 * d.q_width())?, alloc(2 * d.q_width())?]),
            false => None,
        };
        Ok(Activations {
            ids: self.gpu.alloc(DType::U32, &[rows])?,
            positions: self.gpu.alloc(DType::U32, &[rows])?,
            tree: None,
            normed: alloc(d.hidden)?,
            x: alloc(d.hidden)?,
            update: alloc(d.hidden)?,
            q: alloc(d.q_width())?,
            k: alloc(d.kv_width())?,
            v: alloc(d.kv_width())?,
            mixed: alloc(d.q_width())?,
            gated: alloc(d.ffn)?,
            workspace: self.gpu.alloc(DType::F32, &[workspace])?,
            halves,
        })
    }
}

impl Layer {
    /// How the two of a head become one; the norm has no weights.
    fn difference(&self, eps: f32) -> Option<Difference<'_>> {
        self.lambda.as_ref().map(|([q1, k1, q2, k2], init)| Difference {
            lambda: Lambda::Learned { q: [q1, q2], k: [k1, k2], init: *init },
            norm: Some(SubNorm { weight: None, eps }),
            factor: 1.0 - init,
        })
    }
}

impl Projection {
    /// out\[row..\] = a · weightᵀ + bias.
    fn record(
        &self,
        r: &mut Recorder<'_, '_>,
        a: &Tensor,
        out: &Tensor,
        out_row: usize,
    ) -> wgmarlin::Result<()> {
        let bias = self.bias.as_ref();
        matmul::record(r, &Linear { out_row, bias, ..Linear::new(a, &self.weight, out) })
    }
}

impl Activations {
    fn scratch(&self) -> Option<Scratch<'_>> {
        let workspace = &self.workspace;
        self.halves.as_ref().map(|[queries, parts]| Scratch { queries, parts, workspace })
    }

    /// The first `rows` rows, in the same memory.
    pub fn first(&self, gpu: &Gpu, rows: usize) -> wgmarlin::Result<Activations> {
        let first = |tensor: &Tensor| tensor.rows_view(gpu, 0, rows);
        Ok(Activations {
            ids: first(&self.ids)?,
            positions: first(&self.positions)?,
            tree: None,
            normed: first(&self.normed)?,
            x: first(&self.x)?,
            update: first(&self.update)?,
            q: first(&self.q)?,
            k: first(&self.k)?,
            v: first(&self.v)?,
            mixed: first(&self.mixed)?,
            gated: first(&self.gated)?,
            workspace: self.workspace.clone(),
            halves: self.halves.clone(),
        })
    }
}

/// Brings tensors from the checkpoint to the GPU and counts their bytes.
struct Loader<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    precision: Precision,
    bytes: u64,
}

impl Loader<'_> {
    /// The format of embeddings and head.
    fn dense_format(&self) -> Format {
        match self.precision.weights {
            Format::F32 => Format::F32,
            Format::Bf16 => Format::Bf16,
            _ if self.gpu.caps().f16 => Format::F16,
            _ => Format::F32,
        }
    }

    /// The rows of `paired` heads, if any, in pairs: the first of each half, the second of each half, and so on.
    fn projection(
        &mut self,
        name: &str,
        [n, k]: [usize; 2],
        bias: bool,
        paired: Option<usize>,
    ) -> Result<Projection> {
        let in_order = |values: Vec<f32>| match paired {
            None => values,
            Some(heads) => {
                let (first, second) = values.split_at(values.len() / 2);
                let head = values.len() / heads;
                first.chunks(head).zip(second.chunks(head)).flat_map(|(a, b)| [a, b].concat()).collect()
            }
        };
        let values = in_order(self.checkpoint.floats(name, &[n, k])?);
        let weight = self.upload_packed(&self.quantise(name, &values, n, k, self.precision.weights)?)?;
        let bias = match bias {
            false => None,
            true => {
                let name = name.replace(".weight", ".bias");
                let values = in_order(self.checkpoint.floats(&name, &[n])?);
                Some(self.upload_vector(&name, &values)?)
            }
        };
        Ok(Projection { weight, bias })
    }

    fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<Weight> {
        let packed = self.pack(name, n, k)?;
        self.upload_packed(&packed)
    }

    fn pack(&self, name: &str, n: usize, k: usize) -> Result<PackedMatrix> {
        self.quantise(name, &self.checkpoint.floats(name, &[n, k])?, n, k, self.precision.weights)
    }

    fn quantise(
        &self,
        name: &str,
        values: &[f32],
        n: usize,
        k: usize,
        format: Format,
    ) -> Result<PackedMatrix> {
        let Precision { group, search, .. } = self.precision;
        PackedMatrix::quantise(values, n, k, format, group, search)
            .map_err(|e| self.checkpoint.wrong(name, e))
    }

    fn upload_packed(&mut self, packed: &PackedMatrix) -> Result<Weight> {
        let weight = Weight::upload(self.gpu, packed)?;
        self.bytes += weight.bytes();
        Ok(weight)
    }

    /// A norm's weight or a bias, in the type of the activations.
    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        let values = self.checkpoint.floats(name, &[len])?;
        self.upload_vector(name, &values)
    }

    fn vector_if(&mut self, wanted: bool, name: &str, len: usize) -> Result<Option<Tensor>> {
        wanted.then(|| self.vector(name, len)).transpose()
    }

    /// λ's vectors q1, k1, q2, k2 in f32, and its initial value.
    fn lambda(&mut self, layer: usize, head_dim: usize) -> Result<([Tensor; 4], f32)> {
        let mut vector = |part: &str| -> Result<Tensor> {
            let name = format!("model.layers.{layer}.self_attn.lambda_{part}");
            let tensor = self.gpu.tensor(&[head_dim], &self.checkpoint.floats(&name, &[head_dim])?)?;
            self.bytes += tensor.bytes();
            Ok(tensor)
        };
        let vectors = [vector("q1")?, vector("k1")?, vector("q2")?, vector("k2")?];
        Ok((vectors, 0.8 - 0.6 * (-0.3 * layer as f32).exp()))
    }

    fn upload_vector(&mut self, name: &str, values: &[f32]) -> Result<Tensor> {
        let len = values.len();
        let tensor = if self.precision.activations == DType::F16 {
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            if let Some(i) = halves.iter().position(|h| !h.is_finite()) {
                return Err(self.checkpoint.wrong(name, format!("element {i} = {} is no f16", values[i])));
            }
            self.gpu.tensor(&[len], &halves)?
        } else {
            self.gpu.tensor(&[len], values)?
        };
        self.bytes += tensor.bytes();
        Ok(tensor)
    }

    /// The embedding table: f32 or f16, or bf16 as pairs in words. `hidden` is a multiple of 8, so rows end with words; those of the
    /// packed matrix may have padding behind them.
    fn table(&mut self, packed: &PackedMatrix) -> Result<Tensor> {
        let shape = [packed.n, packed.k];
        let row = packed.k * packed.format.bits() / 32;
        let words = if row == packed.row_words {
            Cow::Borrowed(&packed.words)
        } else {
            Cow::Owned(
                packed.words.chunks(packed.row_words).flat_map(|words| &words[..row]).copied().collect(),
            )
        };
        let table = match packed.format {
            Format::F32 => self.gpu.tensor(&shape, bytemuck::cast_slice::<u32, f32>(&words))?,
            Format::F16 => self.gpu.tensor(&shape, bytemuck::cast_slice::<u32, f16>(&words))?,
            _ => self.gpu.tensor(&[packed.n, row], &words)?,
        };
        self.bytes += table.bytes();
        Ok(table)
    }
}

/// The type of activations when the user names none.
pub fn default_activations(gpu: &Gpu, weights: Format) -> DType {
    if weights != Format::F32 && gpu.caps().f16 { DType::F16 } else { DType::F32 }
}

/// Fails where the adapter cannot do what was asked, before anything is loaded.
pub fn check_activations(gpu: &Gpu, activations: DType) -> Result<()> {
    if activations == DType::F16 && !gpu.caps().f16 {
        let why = gpu.caps().why_missing(wgmarlin::Capability::F16);
        return Err(Error::invalid("--activations f16", format!("{}: {why}", gpu.caps().adapter)));
    }
    Ok(())
}
