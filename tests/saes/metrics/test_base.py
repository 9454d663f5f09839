from saes.metrics.base import metrics


def test_every_metric_of_the_folder_is_found_once():
    names = [metric.name for metric in metrics()]
    assert names == sorted(set(names))
    assert {"fvu", "l0", "density", "dead", "shrinkage", "loss_recovered", "embedding_cosine"} <= set(names)
