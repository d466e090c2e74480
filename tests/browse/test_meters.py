"""What is counted, as Prometheus reads it."""

from multigrain_jax.browse.meters import Meters


def test_counters_gauges_and_durations():
    meters = Meters({"waiting": lambda: 3})
    meters.count("requests_total", labels='path="/x",status="200"')
    meters.count("requests_total", 2, labels='path="/x",status="200"')
    for seconds in (0.004, 0.03, 99):
        meters.observe("search_seconds", seconds)
    lines = meters.text().splitlines()
    assert 'multigrain_requests_total{path="/x",status="200"} 3' in lines
    assert "multigrain_rejected_total 0" in lines
    assert "multigrain_waiting 3" in lines
    buckets = [line for line in lines if line.startswith("multigrain_search_seconds_b")]
    counts = [int(line.split()[-1]) for line in buckets]
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (1, 3)
    assert 'multigrain_search_seconds_bucket{le="0.05"} 2' in lines
    assert 'multigrain_search_seconds_bucket{le="+Inf"} 3' in lines
    assert "multigrain_search_seconds_sum 99.034" in lines
    assert "multigrain_search_seconds_count 3" in lines
    # Every name has its help and its type, once.
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds)) == 9
