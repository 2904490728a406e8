// Loads for the caches' sake. What they bring must seem to matter, or the compiler leaves them out. Needs `params` with `k`, the columns of a row.

// False, as rows have columns, but not without the word. `(word | params.k) == 0` would do, and cost what the touches gain.
fn never(word: u32) -> bool { return (word == 1u) & (params.k == 0u); }
