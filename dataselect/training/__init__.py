"""Train the classifier that `fasttext_quality` scores with: the one place that needs the fasttext package.

`train.train` is the whole of it: `documents` reads shards with the pipeline's reader and makes lines of their
texts, `labels` turns a score column into two classes, `split` says by hashes what is held out, what is
balanced and in which order, `fasttext_process` trains and predicts in processes of their own, `cleaning`
finds wrong labels, `metrics` and `calibration` judge the model by what was held out.
"""
