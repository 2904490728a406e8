//! Reads an MSL kernel's arguments as far as the host relies on them: nobody else compares them with the declaration, as wgpu
//! passes the text on unseen.

use super::translate::{Reflection, ShaderField};
use crate::error::{Error, Result};
use crate::kernel::{Access, Def, KernelSpec, TierSpec, Variant, compose};

/// Composes one variant of an Msl tier and reads its parameters, arguments and threads. Workgroup memory is measured where
/// the kernel is run.
///
/// # Errors
/// [`Error::Compile`] for a text that is not made as the tier's kernels must be.
pub fn reflect_msl(spec: &KernelSpec, tier: &TierSpec, variant: &Variant) -> Result<Reflection> {
    let composed = compose(tier.path, tier.source, &variant.defines)?;
    read(&composed.text, tier.entry(), variant).map_err(|log| Error::Compile {
        kernel: format!("{} [{}] {:?}", spec.name, tier.tier.name(), variant.defines),
        log: format!("{}: {log}", tier.path),
    })
}

fn read(text: &str, entry: &str, variant: &Variant) -> Result<Reflection, String> {
    let text: String =
        text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    for absent in ["[[threadgroup(", "[[function_constant("] {
        if text.contains(absent) {
            return Err(format!("{absent}…)]]: passthrough modules have none"));
        }
    }
    let head = format!("kernel void {entry}(");
    let (before, rest) = text.split_once(&head).ok_or_else(|| format!("no `{head}`"))?;
    let mut bindings = Vec::new();
    let mut params = None;
    for argument in arguments(rest) {
        let Some((declaration, slot)) = argument.split_once("[[buffer(") else { continue };
        let slot: u32 = slot
            .split(')')
            .next()
            .and_then(|n| n.trim().parse().ok())
            .ok_or_else(|| format!("`{argument}`: a slot must be a number"))?;
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let name = words.last().copied().unwrap_or_default().to_string();
        match (slot, words.as_slice()) {
            (0, ["constant", "Params&", "params"]) => params = Some(fields(&text)?),
            (0, _) => return Err(format!("`{argument}`: buffer 0 is for `constant Params& params`")),
            (_, ["device", "const", ..]) => bindings.push((slot - 1, name, Access::Read)),
            (_, ["device", ..]) => bindings.push((slot - 1, name, Access::ReadWrite)),
            _ => return Err(format!("`{argument}`: storage is `device`")),
        }
    }
    const THREADS: &str = "[[max_total_threads_per_threadgroup(";
    let threads = before
        .rsplit_once(THREADS)
        .and_then(|(_, rest)| rest.split(')').next())
        .and_then(|word| number(word.trim(), variant))
        .ok_or_else(|| format!("no {THREADS}…)]] with a number or a define before the kernel"))?;
    bindings.sort_by_key(|b: &(u32, String, Access)| b.0);
    let params = params.ok_or("no `constant Params& params [[buffer(0)]]`")?;
    Ok(Reflection { params, bindings, workgroup_size: [threads, 1, 1], workgroup_storage: 0 })
}

fn number(word: &str, variant: &Variant) -> Option<u32> {
    let define = variant.defines.iter().find(|(name, _)| *name == word);
    match define {
        Some((_, Def::Num(n))) => Some(*n),
        _ => word.parse().ok(),
    }
}

/// The arguments up to the parenthesis that closes the list.
fn arguments(list: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        depth += i32::from("([<".contains(c)) - i32::from(")]>".contains(c));
        if depth < 0 {
            break;
        }
        match (c, depth) {
            (',', 0) => all.push(String::new()),
            _ => all.last_mut().into_iter().for_each(|last| last.push(c)),
        }
    }
    all.into_iter().map(|argument| argument.trim().to_string()).collect()
}

/// The fields of `struct Params`, all of 4 bytes.
fn fields(text: &str) -> Result<Vec<ShaderField>, String> {
    let body = text.split("struct Params {").nth(1).and_then(|rest| rest.split('}').next());
    let body = body.ok_or("no `struct Params {`")?;
    let declared = body.split(';').map(str::trim).filter(|line| !line.is_empty());
    (0..)
        .zip(declared)
        .map(|(i, line)| match line.split_once(' ') {
            Some(("uint" | "int" | "float", name)) => {
                Ok(ShaderField { name: name.trim().to_string(), offset: 4 * i, size: 4 })
            }
            _ => Err(format!("`{line}` in Params: fields are uint, int or float")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Needs, defines};

    const GOOD: &str = "struct Params {\n    uint m; // rows\n    float eps;\n};\n\
        [[max_total_threads_per_threadgroup(THREADS)]]\nkernel void gemv(\n\
        constant Params& params [[buffer(0)]],\ndevice const half* a [[buffer(1)]],\n\
        device vec<float, 4>* out [[buffer(2)]],\nuint3 group [[threadgroup_position_in_grid]]) {}\n";

    fn of(text: &str) -> Result<Reflection, String> {
        let defines = defines![THREADS = Def::Num(64)];
        read(text, "gemv", &Variant { defines, needs: Needs::default() })
    }

    #[test]
    fn arguments_are_read() {
        let read = of(GOOD).expect("reads");
        let field = |name: &str, offset| ShaderField { name: name.into(), offset, size: 4 };
        assert_eq!(read.params, [field("m", 0), field("eps", 4)]);
        let want = [(0, "a".to_string(), Access::Read), (1, "out".to_string(), Access::ReadWrite)];
        assert_eq!(read.bindings, want);
        assert_eq!(read.workgroup_size, [64, 1, 1]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to, complaint) in [
            ("void gemv(", "void gemm(", "no `kernel void gemv("),
            ("[[buffer(2)]]", "[[threadgroup(0)]]", "passthrough modules have none"),
            ("Params& params", "Params& p", "buffer 0 is for"),
            ("THREADS", "OTHERS", "no [[max_total_threads"),
            ("uint m", "half m", "fields are uint, int or float"),
            ("device const half*", "constant half*", "storage is `device`"),
            ("buffer(1)", "buffer(ONE)", "must be a number"),
        ] {
            let said = of(&GOOD.replace(from, to)).expect_err(to);
            assert!(said.contains(complaint), "{to}: {said}");
        }
    }
}
