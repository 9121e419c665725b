use super::*;

fn coefficients(degree: usize, seed: u64, keep: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut c: Vec<f64> = (0..=degree)
        .map(|k| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if keep(k) { (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0 } else { 0.0 }
        })
        .collect();
    c[degree] = 0.75;
    c
}

/// Checks structure, depth and values; returns the cost.
fn check(c: &[f64]) -> ChebyshevCost {
    let plan = ChebyshevPlan::new(c).unwrap();
    check_plan(&plan);
    plan.cost()
}

fn check_plan(plan: &ChebyshevPlan) {
    let degree = plan.degree();
    assert_eq!(plan.root().depth, plan.depth());
    let mut depth = vec![None; degree + 2];
    let mut degree2 = vec![false; degree + 2];
    depth[1] = Some(0);
    for s in plan.powers() {
        assert_eq!(s.index, s.a + s.b, "degree {degree}");
        assert!(s.a >= s.b && s.b >= 1);
        assert!(!degree2[s.a] && !degree2[s.b], "operands have degree 1");
        assert!(depth[s.a].unwrap() < s.depth && depth[s.b].unwrap() < s.depth);
        assert!(s.a == s.b || depth[s.a - s.b].unwrap() < s.depth);
        assert!(depth[s.index].replace(s.depth).is_none(), "no power twice");
        degree2[s.index] = !s.relinearise;
    }
    for (i, n) in plan.nodes().iter().enumerate() {
        assert!(n.terms.len() + n.products.len() > 0, "degree {degree}: a node is never constant");
        let mut high = false;
        for t in &n.terms {
            assert!(depth[t.power].unwrap() < n.depth);
            assert!(t.coefficient != 0.0);
            high |= degree2[t.power];
        }
        for p in &n.products {
            assert!(p.node < i && plan.nodes()[p.node].depth < n.depth);
            assert!(depth[p.power].unwrap() < n.depth && !degree2[p.power]);
            high = true;
        }
        assert_eq!(high, n.relinearise);
    }
    let norm: f64 = plan.coefficients().iter().map(|c| c.abs()).sum();
    for i in 0..=40 {
        let x = (i as f64 - 20.0) / 20.0;
        let (got, want) = (plan.eval(x), clenshaw(plan.coefficients(), x));
        assert!(
            (got - want).abs() <= 1e-13 * norm * (1.0 + degree as f64),
            "degree {degree} at {x}: {got} against {want}"
        );
    }
}

#[test]
fn depth_is_optimal_for_every_degree() {
    for degree in 1..=127 {
        let c = coefficients(degree, degree as u64, |_| true);
        let plan = ChebyshevPlan::new(&c).unwrap();
        let mut least = 0;
        while (1usize << least) < degree + 1 {
            least += 1;
        }
        assert_eq!(plan.depth(), least, "degree {degree}");
        check_plan(&plan);
    }
    for degree in [128, 200, 255, 256, 511] {
        assert_eq!(depth_of_degree(degree), if degree < 256 { 8 } else { 9 });
        check(&coefficients(degree, 3, |_| true));
    }
}

#[test]
fn odd_and_even_series_skip_half() {
    let w = ChebyshevWeights { level_discount: 0.0, ..ChebyshevWeights::default() };
    for degree in 2..=127 {
        let plan = |c: &[f64]| {
            let plan = ChebyshevPlan::with_depth(c, depth_of_degree(c.len() - 1), &w).unwrap();
            check_plan(&plan);
            (w.price(&plan.operations()), plan.cost())
        };
        let (all, _) = plan(&coefficients(degree, 5, |_| true));
        let (half, cost) = plan(&coefficients(degree, 5, |k| k % 2 == degree % 2));
        assert!(half <= all, "degree {degree}: {half} against {all}");
        if degree % 2 == 0 {
            // An even series is a full one in C_2, which is one square away.
            let (inner, _) = plan(&coefficients(degree / 2, 5, |_| true));
            let square = w.multiply + w.scalar + w.relinearise + 2.0 * w.rescale;
            assert!(half <= inner + 1.01 * square, "degree {degree}: {half} against {inner}");
        }
        assert!(cost.scalar_multiplications <= degree / 2 + 8, "degree {degree}: {cost:?}");
    }
}

#[test]
fn sparse_and_single_terms() {
    for degree in 1..=127 {
        let single = check(&coefficients(degree, 7, |_| false)).multiplications;
        assert!(single <= 3 * ceil_log2(degree), "T_{degree}: {single}");
        check(&coefficients(degree, 9, |k| k % 5 == 1));
        check(&coefficients(degree, 9, |k| k < 3));
    }
}

#[test]
fn products_stay_near_the_square_root_bound() {
    // Paterson–Stockmeyer needs about √(2d) + log2 d products, more at the end of each power of two, where no level
    // is to spare.
    for (degree, most) in [(2, 1), (3, 2), (5, 3), (7, 5), (13, 7), (15, 8), (27, 11), (31, 13), (63, 21), (127, 27)] {
        let cost = check(&coefficients(degree, 11, |_| true));
        assert!(cost.multiplications <= most, "degree {degree}: {cost:?}");
    }
}

#[test]
fn more_levels_never_cost_more() {
    let w = ChebyshevWeights { level_discount: 0.0, ..ChebyshevWeights::default() };
    for degree in 2..=40 {
        let c = coefficients(degree, 1, |_| true);
        let least = depth_of_degree(degree);
        let tight = ChebyshevPlan::with_depth(&c, least, &w).unwrap();
        let loose = ChebyshevPlan::with_depth(&c, least + 1, &w).unwrap();
        check_plan(&loose);
        assert_eq!(loose.depth(), least + 1);
        assert!(w.price(&loose.operations()) <= w.price(&tight.operations()) + 1e-9, "{degree}");
    }
}

#[test]
fn operations_lie_within_the_depth() {
    for degree in [1, 2, 6, 17, 31, 64] {
        let plan = ChebyshevPlan::new(&coefficients(degree, 2, |_| true)).unwrap();
        let list = plan.operations();
        assert!(list.iter().all(|op| op.depth < plan.depth()));
        let rescales = list.iter().filter(|op| op.kind == ChebyshevOpKind::Rescale).count();
        assert_eq!(rescales, plan.powers().len() + plan.nodes().len());
        assert_eq!(plan.cost().rescales, rescales);
        let products: usize = plan.nodes().iter().map(|n| n.products.len()).sum();
        assert_eq!(plan.cost().multiplications, products + plan.powers().len());
    }
}

#[test]
fn cancelling_coefficients_are_handled() {
    // Chosen so that remainders vanish exactly: C_3·C_2 = C_5 + C_1 and the like.
    check(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    check(&[0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    check(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    check(&[1.0; 32]);
    check(&[0.5; 100]);
}

#[test]
fn refuses_what_cannot_be_planned() {
    assert_eq!(ChebyshevPlan::new(&[]), Err(ChebyshevError::Constant));
    assert_eq!(ChebyshevPlan::new(&[1.0, 0.0]), Err(ChebyshevError::Constant));
    assert_eq!(ChebyshevPlan::new(&[1.0, f64::NAN]), Err(ChebyshevError::NotFinite { index: 1 }));
    assert_eq!(ChebyshevPlan::new(&[1.0; 513]), Err(ChebyshevError::Degree { degree: 512 }));
    let w = ChebyshevWeights::default();
    assert!(matches!(
        ChebyshevPlan::with_depth(&[1.0; 5], 2, &w),
        Err(ChebyshevError::Depth { degree: 4, asked: 2, least: 3 })
    ));
}

#[test]
fn clenshaw_side_by_side_equals_one_by_one() {
    for degree in [0, 1, 2, 7, 63] {
        let coefficients: Vec<f64> = (0..=degree).map(|k| (k as f64 * 0.7).cos()).collect();
        for count in [0, 1, 15, 16, 17, 40] {
            let xs: Vec<f64> = (0..count).map(|i| -1.0 + 2.0 * i as f64 / 39.0).collect();
            let mut all = xs.clone();
            clenshaw_all(&coefficients, &mut all);
            assert_eq!(all, xs.iter().map(|&x| clenshaw(&coefficients, x)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn scaled_plans_give_multiples() {
    let coefficients: Vec<f64> = (0..=30).map(|k| if k % 2 == 0 { (k as f64 * 0.3).cos() } else { 0.0 }).collect();
    let plan = ChebyshevPlan::new(&coefficients).unwrap();
    let scaled = plan.scaled(-0.75);
    assert_eq!(scaled.powers(), plan.powers());
    for x in [-1.0, -0.3, 0.0, 0.6, 1.0] {
        assert!((scaled.eval(x) + 0.75 * plan.eval(x)).abs() < 1e-12);
        assert!((scaled.eval(x) - clenshaw(scaled.coefficients(), x)).abs() < 1e-12);
    }
}
