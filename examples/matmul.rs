//! A product with a 4-bit weight matrix: out = a · Wᵀ.

use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
use wgmarlin::matmul::{self, Linear, Weight};
use wgmarlin::{DType, Gpu, Result};

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let (n, k) = (512, 256); // output and input features
    let values: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect();
    let packed = PackedMatrix::quantise(&values, n, k, Format::Fp4, Group::Size(32), ScaleSearch::Mse)?;
    let weight = Weight::upload(&gpu, &packed)?;

    let a = gpu.tensor(&[1, k], &values[..k])?; // row 0 of W, to have a known product
    let out = gpu.alloc(DType::F32, &[1, n])?;
    gpu.run(|recorder| matmul::record(recorder, &Linear::new(&a, &weight, &out)))?;

    let exact: f32 = values[..k].iter().map(|w| w * w).sum();
    println!("{}: {} KiB of weights", gpu.caps().adapter, packed.bytes() / 1024);
    println!("out[0] = {:.4}, {exact:.4} with unquantised weights", gpu.read::<f32>(&out)?[0]);
    Ok(())
}
