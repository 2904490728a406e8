//! Lists the adapters of this machine and what each offers: `cargo run --release --example devices`.

use wgmarlin::{Capability, Gpu};

fn main() {
    env_logger::init();
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let backends = descriptor.backends;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    if adapters.is_empty() {
        // Opening says what is missing on this operating system.
        if let Err(error) = Gpu::new() {
            eprintln!("{error}");
        }
        std::process::exit(1);
    }
    for adapter in adapters {
        let info = adapter.get_info();
        println!("{} ({}, {:?})", info.name, info.backend, info.device_type);
        println!("  driver    {} {}", info.driver, info.driver_info);
        match Gpu::builder().name(&info.name).backends(info.backend.into()).open() {
            Ok(gpu) => show(&gpu),
            Err(error) => println!("  unusable  {error}"),
        }
    }
}

fn show(gpu: &Gpu) {
    let caps = gpu.caps();
    for capability in Capability::ALL {
        let text = match capability {
            c if !caps.has(c) => format!("no: {}", caps.why_missing(c)),
            Capability::Subgroup => format!("yes, {} lanes", caps.subgroup_size),
            Capability::Coop => format!("yes, side {}", caps.coop_side.unwrap_or(0)),
            _ => "yes".to_string(),
        };
        println!("  {:<9} {text}", capability.name());
    }
    println!("  buffers   up to {} MiB, {} MiB bound", caps.max_buffer >> 20, caps.max_binding >> 20);
    println!(
        "  workgroup {} threads, {} KiB; timestamps: {}",
        caps.max_workgroup_threads,
        caps.max_workgroup_storage >> 10,
        if caps.timestamps { "yes" } else { "no" }
    );
}
