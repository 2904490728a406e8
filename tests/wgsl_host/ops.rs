//! Arithmetic of single scalars, as words: bool, i32, u32, f32, and f16 in the lower half.

use half::f16;
use naga::{BinaryOperator as B, MathFunction as M, Scalar, ScalarKind as K, UnaryOperator};

fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

/// Of a float of either width, without loss.
pub fn float(scalar: Scalar, word: u32) -> f64 {
    match scalar.width {
        2 => f16::from_bits(word as u16).to_f64(),
        _ => f64::from(f(word)),
    }
}

pub fn rounded(scalar: Scalar, x: f64) -> u32 {
    match scalar.width {
        2 => u32::from(f16::from_f64(x).to_bits()),
        _ => (x as f32).to_bits(),
    }
}

fn unknown<T>(what: impl std::fmt::Debug) -> Result<T, String> {
    Err(format!("{what:?} is not known here"))
}

pub fn unary(op: UnaryOperator, scalar: Scalar, x: u32) -> Result<u32, String> {
    Ok(match (op, scalar.kind) {
        (UnaryOperator::Negate, K::Float) => rounded(scalar, -float(scalar, x)),
        (UnaryOperator::Negate, _) => x.wrapping_neg(),
        (UnaryOperator::LogicalNot, _) => u32::from(x == 0),
        (UnaryOperator::BitwiseNot, _) => !x,
    })
}

pub fn binary(op: B, scalar: Scalar, x: u32, y: u32) -> Result<u32, String> {
    let bool = u32::from;
    if scalar.kind == K::Float {
        let (a, b) = (float(scalar, x), float(scalar, y));
        return Ok(match op {
            B::Add => rounded(scalar, a + b),
            B::Subtract => rounded(scalar, a - b),
            B::Multiply => rounded(scalar, a * b),
            B::Divide => rounded(scalar, a / b),
            B::Modulo => rounded(scalar, a % b),
            B::Equal => bool(a == b),
            B::NotEqual => bool(a != b),
            B::Less => bool(a < b),
            B::LessEqual => bool(a <= b),
            B::Greater => bool(a > b),
            B::GreaterEqual => bool(a >= b),
            _ => return unknown(op),
        });
    }
    let (signed, i, j) = (scalar.kind == K::Sint, x as i32, y as i32);
    let less = if signed { i < j } else { x < y };
    Ok(match op {
        B::Add => x.wrapping_add(y),
        B::Subtract => x.wrapping_sub(y),
        B::Multiply => x.wrapping_mul(y),
        B::Divide if y == 0 => x,
        B::Modulo if y == 0 => 0,
        B::Divide if signed => i.wrapping_div(j) as u32,
        B::Divide => x / y,
        B::Modulo if signed => i.wrapping_rem(j) as u32,
        B::Modulo => x % y,
        B::Equal => bool(x == y),
        B::NotEqual => bool(x != y),
        B::Less => bool(less),
        B::GreaterEqual => bool(!less),
        B::Greater => bool(!less && x != y),
        B::LessEqual => bool(less || x == y),
        B::And | B::LogicalAnd => x & y,
        B::ExclusiveOr => x ^ y,
        B::InclusiveOr | B::LogicalOr => x | y,
        B::ShiftLeft => x.wrapping_shl(y),
        B::ShiftRight if signed => i.wrapping_shr(y) as u32,
        B::ShiftRight => x.wrapping_shr(y),
    })
}

/// Functions that take each component by itself.
pub fn math(fun: M, scalar: Scalar, x: [u32; 4]) -> Result<u32, String> {
    let [a, b, c] = [0, 1, 2].map(|i| float(scalar, x[i]));
    if scalar.kind == K::Float {
        return Ok(rounded(
            scalar,
            match fun {
                M::Abs => a.abs(),
                // Numbers win over NaN, as they do on the devices of this tier.
                M::Min => a.min(b),
                M::Max => a.max(b),
                M::Clamp => a.max(b).min(c),
                M::Fma if scalar.width == 4 => return Ok(f(x[0]).mul_add(f(x[1]), f(x[2])).to_bits()),
                M::Fma => a.mul_add(b, c),
                M::Exp => a.exp(),
                M::Exp2 => a.exp2(),
                M::Log => a.ln(),
                M::Log2 => a.log2(),
                M::Pow => a.powf(b),
                M::Sqrt => a.sqrt(),
                M::InverseSqrt => a.sqrt().recip(),
                M::Floor => a.floor(),
                M::Ceil => a.ceil(),
                M::Round => a.round_ties_even(),
                M::Trunc => a.trunc(),
                M::Sign => {
                    if a == 0.0 {
                        0.0
                    } else {
                        a.signum()
                    }
                }
                M::Tanh => a.tanh(),
                _ => return unknown(fun),
            },
        ));
    }
    let signed = scalar.kind == K::Sint;
    let least = |x: u32, y: u32| if signed { (x as i32).min(y as i32) as u32 } else { x.min(y) };
    let most = |x: u32, y: u32| if signed { (x as i32).max(y as i32) as u32 } else { x.max(y) };
    Ok(match fun {
        M::Abs if signed => (x[0] as i32).wrapping_abs() as u32,
        M::Abs => x[0],
        M::Min => least(x[0], x[1]),
        M::Max => most(x[0], x[1]),
        M::Clamp => least(most(x[0], x[1]), x[2]),
        M::CountOneBits => x[0].count_ones(),
        M::CountLeadingZeros => x[0].leading_zeros(),
        M::CountTrailingZeros => x[0].trailing_zeros(),
        M::ReverseBits => x[0].reverse_bits(),
        M::FirstLeadingBit => 31u32.wrapping_sub(x[0].leading_zeros()),
        M::FirstTrailingBit => {
            if x[0] == 0 {
                u32::MAX
            } else {
                x[0].trailing_zeros()
            }
        }
        M::Dot4I8Packed => {
            let bytes = |x: u32| x.to_le_bytes().map(|b| i32::from(b as i8));
            bytes(x[0]).iter().zip(bytes(x[1])).map(|(a, b)| a * b).sum::<i32>() as u32
        }
        _ => return unknown(fun),
    })
}

/// A conversion to `bytes` of `kind`, or without those the same bits.
pub fn convert(from: Scalar, kind: K, bytes: Option<u8>, x: u32) -> Result<u32, String> {
    let Some(width) = bytes else { return Ok(x) };
    let to = Scalar { kind, width };
    Ok(match (from.kind, kind) {
        (_, K::Bool) => u32::from(if from.kind == K::Float { float(from, x) != 0.0 } else { x != 0 }),
        (K::Float, K::Float) => rounded(to, float(from, x)),
        (K::Float, K::Sint) => float(from, x) as i32 as u32,
        (K::Float, _) => float(from, x) as u32,
        (K::Sint, K::Float) => rounded(to, f64::from(x as i32)),
        (_, K::Float) => rounded(to, f64::from(x)),
        _ => x,
    })
}

pub fn halves(word: u32) -> [u32; 2] {
    [word, word >> 16].map(|half| f16::from_bits(half as u16).to_f32().to_bits())
}

pub fn word_of_halves(x: u32, y: u32) -> u32 {
    let half = |x| u32::from(f16::from_f32(f(x)).to_bits());
    half(x) | half(y) << 16
}
