//! The models branch: one actor per provider, and the router.
