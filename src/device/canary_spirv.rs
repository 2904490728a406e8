//! The canary of the Spirv tier: that lanes hold the elements of matrices that its kernels are written for, which the driver chooses
//! and no specification says. It goes the way of the kernels of the catalogue, so that what it proves holds for them.

use half::f16;

use super::canary::scaled_product;
use super::{Caps, Gpu};
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, Defines, KernelSpec, Launch, Level, Needs, Params, Prepared,
    Recorder, Rule, Tier, Variant, defines, params, tier,
};
use crate::tensor::Tensor;

params! {
    struct CanaryParams { scale: f32 }
}

/// Not part of the catalogue.
pub static SPIRV_CANARY: KernelSpec = KernelSpec {
    name: "canary",
    family: "device",
    replaces: &[],
    params: CanaryParams::FIELDS,
    bindings: &[
        Binding { name: "a", access: Access::Read },
        Binding { name: "b", access: Access::Read },
        Binding { name: "product", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Spirv, "device/canary.wgsl", || vec![Variant { defines: specialised(), needs: NEEDS }])],
    cases: || vec![Case::new(Level::Quick, "f16", "fragments", |gpu, _| Probe::new(gpu)?.into_case())],
};

fn specialised() -> Defines {
    defines![SIDE = Def::Num(16)]
}

const NEEDS: Needs = Needs { f16: true, workgroup_storage: 0, threads: 32, coop_side: 16, subgroup_size: 0 };
const LANES: u32 = 32;
const SCALE: f32 = 0.5;

/// One run of the canary: a product of two matrices of side 16 whose elements tell their places, added to a third.
struct Probe {
    inputs: [Tensor; 2],
    product: Tensor,
    want: Vec<f32>,
}

impl Probe {
    fn new(gpu: &Gpu) -> Result<Probe> {
        let values = |seed: usize| -> Vec<f16> {
            (0..256).map(|i| f16::from_f32(((i * i + seed * i) % 61) as f32 - 30.0)).collect()
        };
        let (a, b) = (values(7), values(3));
        let product = scaled_product(&a, &b, 16, SCALE);
        Ok(Probe {
            want: product.iter().enumerate().map(|(place, x)| x + place as f32).collect(),
            inputs: [gpu.tensor(&[256], &a)?, gpu.tensor(&[256], &b)?],
            product: gpu.tensor(&[256], &[f32::NAN; 256])?,
        })
    }

    fn record(&self, recorder: &mut Recorder<'_, '_>) -> Result<()> {
        let [a, b] = &self.inputs;
        recorder.launch(Launch {
            spec: &SPIRV_CANARY,
            tier: Tier::Spirv,
            defines: specialised(),
            needs: NEEDS,
            binds: &[a, b, &self.product],
            params: CanaryParams { scale: SCALE },
            groups: 1,
        })
    }

    async fn is_right(&self, gpu: &Gpu) -> Result<bool> {
        gpu.run(|recorder| self.record(recorder))?;
        Ok(gpu.read_async::<f32>(&self.product).await? == self.want)
    }

    fn into_case(self) -> Result<Prepared> {
        let want: Vec<f64> = self.want.iter().map(|&x| f64::from(x)).collect();
        let checks = vec![Check::new("product", &self.product, Rule::Exact, move || want.clone())];
        let launch = move |recorder: &mut Recorder<'_, '_>| self.record(recorder);
        Ok(Prepared { launches: vec![Box::new(launch)], checks, cost: Cost::default() })
    }
}

/// Whether SPIR-V kernels compile and lanes hold what they are written for; the reason if not.
pub(super) async fn prove(gpu: &Gpu, caps: &Caps) -> std::result::Result<(), String> {
    if caps.subgroup_size != LANES {
        return Err(format!("subgroups of {} lanes, not {LANES}", caps.subgroup_size));
    }
    let probe = Probe::new(gpu).map_err(|e| e.to_string())?;
    match probe.is_right(gpu).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err("lanes hold other elements of matrices than the kernels are written for".to_string())
        }
        Err(error) => Err(format!("the SPIR-V canary failed: {error}")),
    }
}
