//! Proves that the audit's nets catch something: one small kernel with a choice of faults.

use super::bench::{measure_case, rotation};
use super::compare::{compare_all, dry_run};
use super::stages::{Finished, Verdict};
use super::{Coverage, Outcome, State, static_stages};
use super::{Message, Options, Part, Rows, Stage, audit_items, items, run_case};
use crate::device::Gpu;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Launch, Level, Needs, Params, Prepared, Rule, Tier,
    TierSpec, Variant, defines, params,
};
use crate::tensor::DType;

params! {
    struct DoubleParams { count: u32 }
}

const SOURCE: &str = "
struct Params { count: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= params.count { return; }
#if FAULT == skips
    if i + 1u == params.count { return; }
#elif FAULT == overruns
    if i == 0u { out[params.count] = 0.0; }
#endif
    var value = 2.0 * x[i];
#if FAULT == wrong
    if i == 5u { value += 0.25; }
#elif FAULT == nan
    if i == 5u { value = bitcast<f32>(0x7fc00000u | (params.count >> 31u)); }
#elif FAULT == syntax
    value = nonsense;
#endif
    out[i] = value;
}";

/// Faults that all stages see; `hidden` is a variant that a case uses but the tier does not list.
const FAULTS: [&str; 5] = ["none", "skips", "overruns", "wrong", "nan"];
/// Odd, so that the binding, whose size is a multiple of 16, has room behind the last element: past the binding's end
/// robust devices drop writes.
const COUNT: usize = 99;

fn variant(fault: &'static str) -> Variant {
    Variant { defines: defines![FAULT = Def::Word(fault)], needs: Needs { threads: 64, ..Needs::default() } }
}

const BINDINGS: &[Binding] =
    &[Binding { name: "x", access: Access::Read }, Binding { name: "out", access: Access::ReadWrite }];

const fn spec(source: &'static str, variants: fn() -> Vec<Variant>) -> TierSpec {
    TierSpec { tier: Tier::Base, path: "test/double.wgsl", source, variants }
}

static DOUBLE: KernelSpec = KernelSpec {
    name: "double",
    family: "test",
    replaces: &[],
    params: DoubleParams::FIELDS,
    bindings: BINDINGS,
    tiers: &[spec(SOURCE, || FAULTS.map(variant).into())],
    cases: || ["none", "wrong"].map(|fault| case(fault, Rule::Normalised(1e-3))).into(),
};

fn case(fault: &'static str, rule: Rule) -> Case {
    case_of(COUNT, fault, rule)
}

fn case_of(count: usize, fault: &'static str, rule: Rule) -> Case {
    Case::new(Level::Quick, "f32", fault, move |gpu, _| {
        let values: Vec<f32> = (0..count).map(|i| i as f32 * 0.01).collect();
        let x = gpu.tensor(&[count], &values)?;
        let out = gpu.output(DType::F32, &[count])?;
        let want = move || values.iter().map(|&v| 2.0 * f64::from(v)).collect();
        let checks = vec![Check::new("out", &out, rule, want)];
        let launch = move |recorder: &mut crate::Recorder<'_, '_>| {
            let (tier, defines, needs) = recorder.choose(&DOUBLE, |_| Ok(variant(fault).into()))?;
            let (binds, params) = (&[&x, &out][..], DoubleParams { count: count as u32 });
            let groups = count.div_ceil(64) as u64;
            recorder.launch(Launch { spec: &DOUBLE, tier, defines, needs, binds, params, groups })
        };
        Ok(Prepared { launches: vec![Box::new(launch)], checks, cost: Cost::default() })
    })
}

fn complaint(fault: &'static str, rule: Rule) -> String {
    let gpu = Gpu::new().expect("an adapter");
    match run_case(&gpu, Some(Tier::Base), &case(fault, rule)) {
        Ok(Outcome::Wrong { why, .. }) => why,
        other => format!("{other:?}"),
    }
}

#[test]
fn faults_are_caught_and_named() {
    for rule in [Rule::Normalised(1e-3), Rule::Exact] {
        assert!(complaint("none", rule).contains("Correct"));
        for (fault, want) in [
            ("skips", "1 of 99 wrong, first [98]"),
            ("overruns", "wrote past the end"),
            ("wrong", "1 of 99 wrong, first [5]"),
            ("nan", "1 of 99 wrong, first [5]: NaN"),
        ] {
            let why = complaint(fault, rule);
            assert!(why.contains(want), "{fault} under {rule:?}: {why}");
        }
    }
}

/// Of 99 elements the last is not written, and the twin gives the first only.
#[test]
fn elements_that_the_twin_leaves_out_are_looked_at() {
    let gpu = Gpu::new().expect("an adapter");
    let complaint = |fault, written| {
        let mut prepared = (case(fault, Rule::Normalised(1e-3)).prepare)(&gpu, 1).expect("operands");
        let check = prepared.checks.remove(0);
        let check = Check { want: Box::new(|| vec![0.0]), ..check }.at(vec![0]).written(written);
        prepared.checks.push(check);
        gpu.run(|r| prepared.launches.iter().try_for_each(|launch| launch(r))).expect("runs");
        match compare_all(&gpu, &prepared).expect("the device stays") {
            Outcome::Wrong { why, .. } => why,
            other => format!("{other:?}"),
        }
    };
    assert!(complaint("none", 0..99).contains("Correct"));
    assert!(complaint("skips", 0..98).contains("Correct"));
    assert!(complaint("skips", 0..99).contains("not written: [98]"));
    assert!(complaint("none", 0..98).contains("wrote [98], which it was not to write"));
}

#[test]
fn undeclared_variants_are_caught() {
    assert!(complaint("syntax", Rule::Exact).contains("not among the tier's declared variants"));
}

#[test]
fn rows_tell_the_failure_and_count_the_cases() {
    let gpu = Gpu::new().expect("an adapter");
    let mut rows = Rows::new(&[&DOUBLE]);
    let all = items(Part::Quick, &[(&DOUBLE, Tier::Base)]);
    audit_items(&gpu, &all, (0, all.len()), &Options::default(), &mut |message| {
        if let Message::Finished(finished) = message {
            rows.add(*finished);
        }
    })
    .expect("the device stays");
    let rows = rows.finish();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.state, State::Wrong);
    assert_eq!((row.cases.total, row.cases.correct, row.cases.failed), (2, 1, 1));
    assert_eq!((row.variants, row.loaded), (5, 2));
    assert!(row.reason.as_deref().is_some_and(|why| why.contains("wrong, first [5]")), "{row:?}");
}

#[test]
fn a_case_that_launches_nothing_proves_nothing() {
    let mut rows = Rows::new(&[&DOUBLE]);
    let case = |dtype: &str, verdict, loaded| Finished {
        item: 0,
        kernel: "double".into(),
        tier: "base".into(),
        dtype: dtype.into(),
        case: "empty".into(),
        verdict,
        loaded,
        perf: None,
    };
    let right = || Verdict::Correct { error: 0.0, tolerance: 1e-3 };
    rows.add(case("f32", right(), vec![]));
    rows.add(case("f32", Verdict::Skipped("no matrices".into()), vec![]));
    rows.add(case("f16", right(), vec![]));
    rows.add(case("f16", right(), vec![7]));
    let states: Vec<_> = rows.finish().into_iter().map(|row| (row.state, row.cases.correct)).collect();
    assert_eq!(states, [(State::Unavailable, 1), (State::Correct, 2)]);
}

#[test]
fn cases_are_timed() {
    let gpu = Gpu::new().expect("an adapter");
    let timing = measure_case(&gpu, Some(Tier::Base), &case_of(70_000, "none", Rule::Exact)).expect("runs");
    assert!(timing.seconds > 0.0, "{timing:?}");
}

/// A bench that rotates binds whole copies of the operands and leaves the operands alone.
#[test]
fn operand_sets_are_apart() {
    let gpu = Gpu::new().expect("an adapter");
    let prepared = (case_of(70_000, "none", Rule::Exact).prepare)(&gpu, 1).expect("operands");
    let tier = Some(Tier::Base);
    let planned = || dry_run(&gpu, tier, &prepared).expect("a plan");
    assert_eq!(rotation(&gpu, planned(), 1).expect("one set").len(), 1);
    let sets = rotation(&gpu, planned(), 3).expect("memory");
    assert_eq!(sets.iter().map(|set| set.len()).collect::<Vec<_>>(), [0, 2, 2]);
    gpu.run(|recorder| {
        recorder.substitute(sets[1].clone());
        prepared.launches.iter().try_for_each(|launch| launch(recorder))
    })
    .expect("runs");
    let outcome = |prepared: &Prepared| compare_all(&gpu, prepared).expect("the device stays");
    assert!(matches!(outcome(&prepared), Outcome::Wrong { .. }), "the operands themselves were written");
    let [check] = &prepared.checks[..] else { panic!("one output") };
    for (set, right) in [(1, true), (2, false)] {
        let copy = check.output.within(sets[set][&check.output.storage.id].clone());
        let values = gpu.read::<f32>(&copy).expect("f32");
        let same = values.iter().zip((check.want)()).all(|(&got, want)| (f64::from(got) - want).abs() < 1e-3);
        assert_eq!(same, right, "set {set}");
    }
}

/// The stage at which a changed declaration or source is refused.
fn refused(tier: TierSpec, spec: &KernelSpec) -> Option<(Stage, String)> {
    static_stages(spec, &tier, Coverage::Every).err()
}

#[test]
fn static_stages_refuse_what_disagrees_with_the_declaration() {
    let plain: fn() -> Vec<Variant> = || vec![variant("none")];
    let like = |bindings, params| KernelSpec {
        name: "double",
        family: "test",
        replaces: &[],
        params,
        bindings,
        tiers: &[],
        cases: Vec::new,
    };
    let good = like(BINDINGS, DoubleParams::FIELDS);
    assert_eq!(refused(spec(SOURCE, plain), &good), None);
    let expect = |got: Option<(Stage, String)>, stage, want: &str| {
        assert!(matches!(&got, Some((s, why)) if *s == stage && why.contains(want)), "{want}: {got:?}");
    };
    let syntax: fn() -> Vec<Variant> = || vec![variant("syntax")];
    expect(refused(spec(SOURCE, syntax), &good), Stage::Validate, "test/double.wgsl:21");
    expect(refused(spec("#if NOPE\n#endif", plain), &good), Stage::Compose, "test/double.wgsl:1");
    expect(refused(spec(SOURCE, plain), &like(BINDINGS, &[])), Stage::Validate, "parameters are");
    expect(refused(spec(SOURCE, plain), &like(&[], DoubleParams::FIELDS)), Stage::Validate, "bindings are");
    let greedy: fn() -> Vec<Variant> = || vec![Variant { needs: Needs::default(), ..variant("none") }];
    expect(refused(spec(SOURCE, greedy), &good), Stage::Validate, "needs.threads = 0");
    for (text, want) in [
        ("enable f16; var<private> h: f16; @compute @workgroup_size(64) fn main() { h = 1.0h; }", "f16"),
        ("@compute @workgroup_size(64) fn main() { _ = subgroupAdd(1u); }", "ubgroup"),
        (
            "var<workgroup> w: array<f32, 9>; @compute @workgroup_size(64) fn main() { w[0] = 1.0; }",
            "36 bytes",
        ),
    ] {
        expect(refused(spec(text, plain), &like(&[], &[])), Stage::Validate, want);
    }
}
