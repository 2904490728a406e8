// Loads that are not put off. A compiler moves a load down to where its words are first used, and so past the work that it was to hide
// behind. A branch that uses the words keeps it above:
//     if NEVER { shared = used(words); }
// NEVER must be false, but not so that the compiler knows; `shared` is of the workgroup. The words only have to be read: were they changed,
// they would be copied. subgroupXor() keeps the branch a branch: made a condition of what it does, it would wait for the words.
fn used(words: u32) -> f32 { return f32(subgroupXor(words)); }
