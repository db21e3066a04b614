def test_a_further_match_is_worth_more_where_false_detections_are_seldom_found_again() -> None:
    fleeting, lasting = Calibration(0.5), Calibration(0.5)
    assert fleeting.again_log_odds == 0
    for _ in range(40):
        fleeting.resolve([0.4], False)
        lasting.resolve([0.4] * 4, False)
    assert fleeting.again_log_odds == pytest.approx(np.log(0.5 / (3 / 46)), abs=0.1)  # 3 of 46, the prior's own
    assert lasting.again_log_odds == 0
