//! The canary of the Msl tier. It is a kernel like those of the catalogue and goes the same way, so that what it proves holds
//! for them: the composer's header, the passthrough module, the slots `buffer(binding + 1)`, immediates, threadgroup arrays.

use half::f16;

use super::Gpu;
use super::canary::scaled_product;
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Defines, KernelSpec, Launch, Level, Needs, Params, Prepared,
    Recorder, Rule, Tier, Variant, params, tier,
};
use crate::tensor::Tensor;

params! {
    struct CanaryParams { scale: f32, bias: u32 }
}

/// Not part of the catalogue.
pub static MSL_CANARY: KernelSpec = KernelSpec {
    name: "canary",
    family: "device",
    replaces: &[],
    params: CanaryParams::FIELDS,
    bindings: &[
        Binding { name: "a", access: Access::Read },
        Binding { name: "b", access: Access::Read },
        Binding { name: "product", access: Access::ReadWrite },
        Binding { name: "first", access: Access::ReadWrite },
        Binding { name: "second", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Msl, "device/canary.metal", || vec![Variant { defines: Defines::new(), needs: NEEDS }])],
    cases: || {
        vec![Case::new(Level::Quick, "f16", "slots and matrices", |gpu, _| Probe::new(gpu)?.into_case())]
    },
};

const NEEDS: Needs =
    Needs { f16: false, workgroup_storage: 1024, threads: 64, coop_side: 0, subgroup_size: 0 };
const SCALE: f32 = 0.5;
const BIAS: u32 = 7;

/// One run of the canary.
pub(super) struct Probe {
    inputs: [Tensor; 2],
    product: Tensor,
    first: Tensor,
    second: Tensor,
    want: Vec<f32>,
}

impl Probe {
    pub fn new(gpu: &Gpu) -> Result<Probe> {
        let values = |seed: usize| -> Vec<f16> {
            (0..64).map(|i| f16::from_f32(((i * 7 + seed) % 13) as f32 - 6.0)).collect()
        };
        let (a, b) = (values(0), values(5));
        Ok(Probe {
            want: scaled_product(&a, &b, 8, SCALE).repeat(2),
            inputs: [gpu.tensor(&[64], &a)?, gpu.tensor(&[64], &b)?],
            product: gpu.tensor(&[128], &[f32::NAN; 128])?,
            first: gpu.tensor(&[4], &[u32::MAX; 4])?,
            second: gpu.tensor(&[4], &[u32::MAX; 4])?,
        })
    }

    fn record(&self, recorder: &mut Recorder<'_, '_>) -> Result<()> {
        let [a, b] = &self.inputs;
        recorder.launch(Launch {
            spec: &MSL_CANARY,
            tier: Tier::Msl,
            defines: Defines::new(),
            needs: NEEDS,
            binds: &[a, b, &self.product, &self.first, &self.second],
            params: CanaryParams { scale: SCALE, bias: BIAS },
            groups: 1,
        })
    }

    /// Runs it.
    pub async fn is_right(&self, gpu: &Gpu) -> Result<bool> {
        gpu.run(|recorder| self.record(recorder))?;
        Ok(gpu.read_async::<f32>(&self.product).await? == self.want
            && gpu.read_async::<u32>(&self.first).await? == FIRST
            && gpu.read_async::<u32>(&self.second).await? == SECOND)
    }

    fn into_case(self) -> Result<Prepared> {
        let exact = |name, tensor: &Tensor, want: Vec<f64>| {
            Check::new(name, tensor, Rule::Exact, move || want.clone())
        };
        let wide = |values: [u32; 4]| values.map(f64::from).to_vec();
        let checks = vec![
            exact("product", &self.product, self.want.iter().map(|&x| f64::from(x)).collect()),
            exact("first", &self.first, wide(FIRST)),
            exact("second", &self.second, wide(SECOND)),
        ];
        let launch = move |recorder: &mut Recorder<'_, '_>| self.record(recorder);
        Ok(Prepared { launches: vec![Box::new(launch)], checks, cost: Cost::default() })
    }
}

/// The number of the slot, raised by the bias; nothing more is written.
const FIRST: [u32; 4] = [4 + BIAS, u32::MAX, u32::MAX, u32::MAX];
/// And the width that both SIMD-groups saw.
const SECOND: [u32; 4] = [5 + BIAS, 32, 32, u32::MAX];

/// Whether MSL kernels compile, get their arguments and compute; the reason if not.
pub(super) async fn prove(gpu: &Gpu) -> std::result::Result<(), String> {
    let probe = Probe::new(gpu).map_err(|e| e.to_string())?;
    match probe.is_right(gpu).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the MSL canary gave wrong results".to_string()),
        Err(error) => Err(format!("the MSL canary failed: {error}")),
    }
}
