//! The shader composer: textual includes, conditions on declared names, a generated header of constants. The
//! result is plain WGSL or, of a `.metal` file, MSL, and every line of it knows the file and line that it came from.
//!
//! Directives, each alone on its line:
//! * `//!include "common/grid.wgsl"` takes in a file of `wgsl/common/` (`msl/common/`), once, at its first mention;
//! * `#if NAME`, `#if !NAME`, `#if NAME == value`, `#if NAME != value`, `#elif …`, `#else`, `#endif`, where `NAME`
//!   must be among the defines;
//! * `#for i COUNT` … `#endfor` writes its body COUNT times (a number, or a define that is one) with `{i}` replaced by 0, 1, …
//!   Register tiles are written this way: GPU compilers put arrays that are indexed in a loop into slow memory.
//!
//! Lines that are comments are left out. `enable`, `requires` and `diagnostic` lines of WGSL are moved to the top, where it wants them. In MSL the defines are
//! preceded by `#include <metal_stdlib>` and `using namespace metal;`, and `#define` and `#pragma` lines stay as they are.

use std::borrow::Cow;

use super::spec::{Def, Defines};
use crate::error::{Error, Result};

/// Composed text and where its lines came from.
#[derive(Clone, Debug)]
pub struct Composed {
    pub text: String,
    /// For each line of `text`: the file and its 1-based line.
    pub lines: Vec<(&'static str, usize)>,
}

impl Composed {
    /// Names the original place of a 1-based line of the composed text.
    pub fn origin(&self, line: usize) -> String {
        match self.lines.get(line.wrapping_sub(1)) {
            Some((file, line)) => format!("{file}:{line}"),
            None => format!("composed line {line}"),
        }
    }
}

/// The language of a shader, told by the end of its path.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Wgsl,
    Msl,
}

impl Language {
    fn of(path: &str) -> Language {
        if path.ends_with(".metal") { Language::Msl } else { Language::Wgsl }
    }

    /// What stands before everything else.
    fn preamble(self) -> &'static [&'static str] {
        match self {
            Language::Wgsl => &[],
            Language::Msl => &["#include <metal_stdlib>", "using namespace metal;"],
        }
    }

    /// The declaration of a define; `None` for a word, which only conditions look at.
    fn declare(self, name: &str, value: Def) -> Option<String> {
        Some(match (self, value) {
            (_, Def::Word(_)) => return None,
            (Language::Wgsl, Def::Flag(b)) => format!("const {name}: bool = {b};"),
            (Language::Wgsl, Def::Num(n)) => format!("const {name}: u32 = {n}u;"),
            (Language::Wgsl, Def::Type(t)) => format!("alias {name} = {t};"),
            (Language::Msl, Def::Flag(b)) => format!("constant constexpr bool {name} = {b};"),
            (Language::Msl, Def::Num(n)) => format!("constant constexpr uint {name} = {n}u;"),
            (Language::Msl, Def::Type(t)) => format!("using {name} = {};", msl_type(t)),
        })
    }

    /// Whether the composer leaves a line that starts with `#` to the compiler.
    fn keeps(self, line: &str) -> bool {
        self == Language::Msl && ["#define ", "#pragma "].iter().any(|d| line.starts_with(d))
    }
}

/// MSL's name of a WGSL type: `vec4<f16>` is `half4`; the bits of a bf16 are those of an integer.
fn msl_type(wgsl: &str) -> String {
    let scalar = |name: &str| match name {
        "f32" => "float",
        "f16" => "half",
        "u32" => "uint",
        "i32" => "int",
        "bf16" => "ushort",
        _ => "auto", // no such type: the compiler will say where
    };
    match wgsl.strip_prefix("vec").and_then(|rest| rest.strip_suffix('>')?.split_once('<')) {
        Some((width, element)) => format!("{}{width}", scalar(element)),
        None => scalar(wgsl).to_string(),
    }
}

/// The files that shaders may include, by their path below `wgsl/` or `msl/`.
const INCLUDES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/includes.rs"));

/// Composes `source`, the file at `path`, under `defines`.
///
/// # Errors
/// [`Error::Compile`] with file and line for an unknown name or include, or unbalanced blocks.
pub fn compose(path: &'static str, source: &'static str, defines: &Defines) -> Result<Composed> {
    let language = Language::of(path);
    let mut composer =
        Composer { language, defines, head: Vec::new(), body: Vec::new(), included: Vec::new() };
    composer.file(path, source)?;
    let mut lines = composer.head;
    let preamble = language.preamble().iter().map(|line| line.to_string());
    let declared = defines.iter().filter_map(|(name, value)| language.declare(name, *value));
    lines.extend(preamble.chain(declared).map(|text| (Cow::Owned(text), ("defines", 0))));
    lines.extend(composer.body);
    let mut text = String::new();
    for (line, _) in &lines {
        text.push_str(line);
        text.push('\n');
    }
    Ok(Composed { text, lines: lines.into_iter().map(|(_, place)| place).collect() })
}

/// Where shaders are looked for before those in the binary.
#[cfg(feature = "audit")]
static REPLACED: std::sync::RwLock<Option<std::path::PathBuf>> = std::sync::RwLock::new(None);

/// From now on a shader file that `dir` has, by its path below `wgsl/` or `msl/`, is taken from there. For trying out changes
/// on a machine to which only the binary was copied; pipelines that a [`Gpu`](crate::Gpu) already has stay as they are.
#[cfg(feature = "audit")]
pub fn shaders_from(dir: Option<std::path::PathBuf>) {
    *REPLACED.write().unwrap_or_else(std::sync::PoisonError::into_inner) = dir;
}

#[cfg(feature = "audit")]
fn replaced(path: &str) -> Option<&'static str> {
    let dir = REPLACED.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = std::fs::read_to_string(dir.as_ref()?.join(path)).ok()?;
    Some(Box::leak(text.into_boxed_str())) // as long-lived as what it stands for
}

/// Most lines are those of the file.
type Text = Cow<'static, str>;
type Line = (Text, (&'static str, usize));

struct Composer<'a> {
    language: Language,
    defines: &'a Defines,
    /// Directives such as `enable f16;`.
    head: Vec<Line>,
    body: Vec<Line>,
    included: Vec<&'static str>,
}

/// State of one `#if` block.
struct Block {
    /// Whether this branch's lines are kept.
    live: bool,
    /// Whether some branch has already been taken.
    taken: bool,
    /// Whether the enclosing block is live.
    outer: bool,
    seen_else: bool,
}

impl Composer<'_> {
    fn file(&mut self, path: &'static str, source: &'static str) -> Result<()> {
        #[cfg(feature = "audit")]
        let source = replaced(path).unwrap_or(source);
        let mut blocks: Vec<Block> = Vec::new();
        let numbered: Vec<(usize, Text)> =
            source.lines().enumerate().map(|(i, line)| (i + 1, Cow::Borrowed(line))).collect();
        for (number, line) in self.unroll(path, &numbered)? {
            let place = (path, number);
            let fail = |why: String| failure(path, number, why);
            let word = line.trim();
            let live = blocks.last().is_none_or(|b| b.live);
            if let Some(condition) = word.strip_prefix("#if ") {
                let value = self.condition(condition).map_err(fail)?;
                blocks.push(Block { live: live && value, taken: value, outer: live, seen_else: false });
            } else if let Some(condition) = word.strip_prefix("#elif ") {
                let value = self.condition(condition).map_err(fail)?;
                match blocks.last_mut() {
                    Some(b) if !b.seen_else => {
                        b.live = b.outer && value && !b.taken;
                        b.taken |= value;
                    }
                    _ => return Err(fail("#elif without #if".into())),
                }
            } else if word == "#else" {
                match blocks.last_mut() {
                    Some(b) if !b.seen_else => {
                        b.live = b.outer && !b.taken;
                        b.seen_else = true;
                    }
                    _ => return Err(fail("#else without #if".into())),
                }
            } else if word == "#endif" {
                if blocks.pop().is_none() {
                    return Err(fail("#endif without #if".into()));
                }
            } else if word.starts_with('#') && !self.language.keeps(word) {
                return Err(fail(format!("unknown directive {word:?}")));
            } else if !live {
            } else if word.starts_with("//") && !word.starts_with("//!") {
                // A compiler has no use for it.
            } else if let Some(rest) = word.strip_prefix("//!include ") {
                let name = rest.trim().trim_matches('"');
                let Some(&(file, text)) = INCLUDES.iter().find(|(file, _)| *file == name) else {
                    return Err(fail(format!("no file {name:?} to include")));
                };
                if !self.included.contains(&file) {
                    self.included.push(file);
                    self.file(file, text)?;
                }
            } else if self.language == Language::Wgsl
                && ["enable ", "requires ", "diagnostic("].iter().any(|d| word.starts_with(d))
            {
                if !self.head.iter().any(|(text, _)| text == word) {
                    self.head.push((Cow::Owned(word.to_string()), place));
                }
            } else {
                self.body.push((line, place));
            }
        }
        if blocks.is_empty() {
            return Ok(());
        }
        Err(Error::Compile { kernel: path.to_string(), log: format!("{path}: #if without #endif") })
    }

    /// Expands `#for` blocks, outermost first, so that inner counts and conditions may depend on outer indices.
    fn unroll(&self, path: &str, lines: &[(usize, Text)]) -> Result<Vec<(usize, Text)>> {
        let mut out = Vec::new();
        let mut rest = lines;
        while let Some(((number, line), tail)) = rest.split_first() {
            let Some(head) = line.trim().strip_prefix("#for ") else {
                if line.trim() == "#endfor" {
                    return Err(failure(path, *number, "#endfor without #for".into()));
                }
                out.push((*number, line.clone()));
                rest = tail;
                continue;
            };
            let fail = |why: String| failure(path, *number, why);
            let (name, count) =
                head.trim().split_once(' ').ok_or_else(|| fail("#for needs a name and a count".into()))?;
            let count = self.count(count.trim()).map_err(fail)?;
            let mut depth = 1;
            let end = tail.iter().position(|(_, line)| {
                let word = line.trim();
                depth += i32::from(word.starts_with("#for ")) - i32::from(word == "#endfor");
                depth == 0
            });
            let (body, after) = tail.split_at(end.ok_or_else(|| fail("#for without #endfor".into()))?);
            for i in 0..count {
                let (this, index) = (format!("{{{name}}}"), i.to_string());
                let replaced = |line: &Text| match line.contains('{') {
                    true => Cow::Owned(line.replace(&this, &index)),
                    false => line.clone(),
                };
                let copy: Vec<_> = body.iter().map(|(n, line)| (*n, replaced(line))).collect();
                out.extend(self.unroll(path, &copy)?);
            }
            rest = &after[1..];
        }
        Ok(out)
    }

    fn count(&self, text: &str) -> Result<u32, String> {
        if let Ok(count) = text.parse() {
            return Ok(count);
        }
        match self.defines.iter().find(|(n, _)| *n == text) {
            Some((_, Def::Num(count))) => Ok(*count),
            _ => Err(format!("#for needs a number or a numeric define, not {text:?}")),
        }
    }

    fn condition(&self, text: &str) -> Result<bool, String> {
        let text = text.split("//").next().unwrap_or_default().trim();
        let value = |name: &str| {
            let found = self.defines.iter().find(|(n, _)| *n == name.trim());
            found.map(|(_, v)| *v).ok_or_else(|| format!("unknown name {:?}", name.trim()))
        };
        if let Some((name, want)) = text.split_once("!=") {
            return Ok(!value(name)?.is(want.trim()));
        }
        if let Some((name, want)) = text.split_once("==") {
            return Ok(value(name)?.is(want.trim()));
        }
        let (name, negate) = text.strip_prefix('!').map_or((text, false), |name| (name, true));
        match value(name)? {
            Def::Flag(b) => Ok(b != negate),
            Def::Num(n) => Ok((n != 0) != negate),
            Def::Type(_) | Def::Word(_) => Err(format!("{name} is not a flag; compare it with ==")),
        }
    }
}

fn failure(path: &str, line: usize, why: String) -> Error {
    Error::Compile { kernel: path.to_string(), log: format!("{path}:{line}: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::defines;

    fn composed(source: &'static str) -> Result<String> {
        let defines = defines![FAST = Def::Flag(true), SIDE = Def::Num(8), T = Def::Word("fp4")];
        compose("test.wgsl", source, &defines).map(|c| c.text)
    }

    #[test]
    fn branches_and_header() {
        let text = composed(
            "#if FAST\nfast\n#else\nslow\n#endif\n#if SIDE == 16\nbig\n#elif T == fp4\nfour\n#else\nnone\n#endif\n\
             #if !FAST\nno\n#if T == fp4\nno\n#endif\n#endif\nenable f16;\n",
        );
        let want = "enable f16;\nconst FAST: bool = true;\nconst SIDE: u32 = 8u;\nfast\nfour\n";
        assert_eq!(text.ok().as_deref(), Some(want));
    }

    #[test]
    fn comments_are_left_out() {
        let text = composed("  // a comment\nx; // {T}\n//!include \"common/grid.wgsl\"\n");
        assert!(text.is_ok_and(|text| text.contains("x; // {T}\n") && !text.contains("a comment")));
    }

    #[test]
    fn msl_has_its_own_header() {
        let mut defines = defines![FAST = Def::Flag(true), SIDE = Def::Num(8), T = Def::Word("fp4")];
        defines.extend(defines![TA = Def::Type("f16"), TV = Def::Type("vec2<u32>")]);
        let source = "#define X 1\n#if TA == f16\n#pragma clang loop unroll(full)\nenable_it();\n#endif\n";
        let text = compose("test.metal", source, &defines).map(|c| c.text);
        let want = "#include <metal_stdlib>\nusing namespace metal;\nconstant constexpr bool FAST = true;\n\
                    constant constexpr uint SIDE = 8u;\nusing TA = half;\nusing TV = uint2;\n#define X 1\n\
                    #pragma clang loop unroll(full)\nenable_it();\n";
        assert_eq!(text.ok().as_deref(), Some(want));
        let error = compose("test.metal", "#ifdef X", &defines).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("unknown directive")));
    }

    #[test]
    fn loops_unroll() {
        let text = composed("#for i 2\n#for j SIDE\n#if FAST\nx_{i}_{j}\n#endif\n#endfor\n#endfor\n").ok();
        let lines: Vec<String> = (0..16).map(|n| format!("x_{}_{}", n / 8, n % 8)).collect();
        assert!(text.is_some_and(|t| t.ends_with(&(lines.join("\n") + "\n"))));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (source, want) in [
            ("a\n#if NOPE\n#endif", "test.wgsl:2: unknown name \"NOPE\""),
            ("#endif", "test.wgsl:1: #endif without #if"),
            ("#if FAST", "#if without #endif"),
            ("//!include \"common/nope.wgsl\"", "no file"),
            ("#if T\n#endif", "not a flag"),
            ("#define X", "unknown directive"),
            ("#if FAST\n#else\n#else\n#endif", "#else without #if"),
            ("#for i 2", "test.wgsl:1: #for without #endfor"),
            ("#endfor", "#endfor without #for"),
            ("#for i T\n#endfor", "not \"T\""),
        ] {
            let error = composed(source).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(want), "{source:?}: {error}");
        }
    }

    #[test]
    fn origins_survive_includes() {
        let c =
            compose("t.wgsl", "//!include \"common/grid.wgsl\"\nlast", &Defines::new()).expect("composes");
        let count = c.text.lines().count();
        assert_eq!(c.origin(count), "t.wgsl:2");
        assert!(c.origin(1).starts_with("common/grid.wgsl:3"));
    }
}
