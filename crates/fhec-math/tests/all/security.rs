//! The security table, written out a second time.

use fhec_math::{SecurityLevel, log2_product, max_log_qp, security_estimate, sparse_security};

#[test]
fn table_values() {
    let expected = [
        (10, [Some(26), None, None]),
        (11, [Some(53), Some(36), Some(27)]),
        (12, [Some(106), Some(73), Some(56)]),
        (13, [Some(214), Some(147), Some(114)]),
        (14, [Some(430), Some(297), Some(230)]),
        (15, [Some(868), Some(597), Some(462)]),
        (16, [Some(1747), Some(1199), Some(929)]),
        (17, [Some(3523), Some(2411), Some(1866)]),
        (9, [None; 3]),
        (18, [None; 3]),
    ];
    for (log_n, limits) in expected {
        for (level, limit) in SecurityLevel::ALL.into_iter().zip(limits) {
            assert_eq!(max_log_qp(level, log_n), limit, "2^{log_n} at {} bits", level.bits());
        }
    }
}

#[test]
fn estimates_meet_the_table_and_never_exceed_it() {
    for log_n in 10..=17 {
        for level in SecurityLevel::ALL {
            let at = |log_qp: f64| security_estimate(log_n, log_qp).unwrap();
            let Some(limit) = max_log_qp(level, log_n) else {
                // Only an extrapolation is left there, and it says nothing about what the table grants.
                assert!(log_n == 10 && at(5.0) > f64::from(level.bits()));
                continue;
            };
            assert!((at(f64::from(limit)) - f64::from(level.bits())).abs() < 1e-9);
            assert!(at(f64::from(limit) + 0.5) < f64::from(level.bits()));
        }
        let mut last = f64::INFINITY;
        for log_qp in 1..4000 {
            let bits = security_estimate(log_n, f64::from(log_qp)).unwrap();
            assert!(bits < last, "decreasing");
            last = bits;
        }
    }
    assert_eq!(security_estimate(9, 20.0), None);
    assert_eq!(security_estimate(13, f64::NAN), None);
    assert_eq!(security_estimate(13, 0.0), None);
}

#[test]
fn sparse_secrets_are_granted_what_the_limits_say() {
    assert_eq!(sparse_security(16, 32, 100.0), Some(128.0));
    assert_eq!(sparse_security(15, 32, 100.5), None);
    assert_eq!(sparse_security(16, 31, 60.0), None);
    assert_eq!(sparse_security(14, 32, 60.0), None);
}

#[test]
fn log2_of_a_chain() {
    assert!((log2_product(&[1 << 40, 1 << 30, 8]) - 73.0).abs() < 1e-12);
    assert_eq!(log2_product(&[]), 0.0);
}
