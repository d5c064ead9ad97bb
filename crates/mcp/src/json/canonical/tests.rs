//! The examples of RFC 8785, and what has no canonical form.

use super::*;

fn of(text: &str) -> Option<String> {
    canonical(serde_json::from_str(text).unwrap())
}

#[test]
fn the_examples_of_the_rfc_come_out_as_it_says() {
    let rows = [
        // Section 3.2.2.
        (
            r#"{ "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
              "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
              "literals": [null, true, false] }"#,
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#,
        ),
        // Section 3.2.3.
        (
            r#"{ "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
              "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control",
              "\u00f6": "Latin Small Letter O With Diaeresis" }"#,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
             \"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\
             \"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
        ),
        (
            " [ 56 , { \"d\" : true , \"10\" : null , \"1\" : [ ] } ] ",
            r#"[56,{"1":[],"10":null,"d":true}]"#,
        ),
        ("{}", "{}"),
        (
            "\"\\u0008\\t\\n\\f\\r\\u001f\\u007f\"",
            "\"\\b\\t\\n\\f\\r\\u001f\u{7f}\"",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(of(text.trim()).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn numbers_are_printed_as_ecmascript_prints_them() {
    // RFC 8785, appendix B.
    for (bits, expected) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
    ] {
        let value = f64::from_bits(bits);
        assert_eq!(
            of(&format!("{value:e}")).as_deref(),
            Some(expected),
            "{bits:x}"
        );
        assert_eq!(
            of(expected).as_deref(),
            Some(expected),
            "a canonical text is its own"
        );
    }
    for (text, expected) in [
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("1.10", "1.1"),
        ("100e-2", "1"),
        ("-12E+2", "-1200"),
    ] {
        assert_eq!(of(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn what_two_readers_could_tell_apart_has_no_canonical_form() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":{"b":1,"\u0062":2}}"#,
        "9007199254740993",
        "12345678901234567891",
        "0.10000000000000000001",
        "1e400",
        "-1e400",
        "1e-400",
        "1e99999999999999999999",
        r#""\ud800""#,
        r#"{"\ud800":1}"#,
    ] {
        assert_eq!(of(text), None, "{text}");
    }
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    assert_eq!(of(&deep), None);
}
