"""The sentences of a decision in Japanese: the keys and fields of `decision.REASONS`."""

from __future__ import annotations

REASONS_JA = {
    "no-expert": "{missing}のエキスパートがなく、学習する材料もありません。既存のものを指定するか、{give} を与えてください。",
    "no-text": "学習に使える{language}のテキストがありません。--text で与えてください。",
    "no-pairs": "{language}の質問とその英語の対がありません。--pairs で与えてください。",
    "no-instruct": "語彙を引き継ぐ instruct モデルがありません。--instruct で与えてください。",
    "tokenizer-fits": "トークナイザは既に適しています。拡張しても 1 トークンに入るテキストは {gain} 倍で、必要な {wanted} "
                      "倍に届きません。",
    "tokenizer-fixed": "トークナイザを拡張できません：{why}。", "refused": "計画の段階で拒否されました：{why}。",
    "short-text": "校正に使える{language}のテキストが足りません。{give} で追加してください。",
    "no-neurons": "読んだテキストの中に{language}固有のニューロンは見つかりませんでした。"
                  "テキストを増やすか、次の段階で見つかることがあります。",
    "not-asked": "対象外です（--methods に含まれていません）。",
    "nothing": "何もしない場合、費用はかからず、何も変わりません。",
    "failed": "ステップ `{step}` が完了できませんでした：{why}。",
    "dropped": "{stage}段階で{measure}の変化が {value} だったため、除外しました。",
    "unmeasured": "実行しましたが、判定に使える区間付きの差がありません。",
    "gains": "{measure}の変化は {value} で、許容範囲を超える損失は他にありません。",
    "loses": "{measure}の変化は {value} ですが、{lost}が {loss} 変化しました。",
    "saves": "{measure}の変化は {value} で、損失は見られず、運用コストは {saving} 減ります。",
    "even": "{measure}の変化は {value} で、{n} 項目では何もしない場合との差があるとは言えません。",
    "even-loses": "{measure}の変化は {value} で、{n} 項目では何もしない場合との差があるとは言えず、{lost}が {loss} 変化しました。",
    "worse": "{measure}の変化は {value} で、何もしない場合より悪化しました。",
    "adopt": "{method}の採用を推奨します。{measure}の変化は {value}、費用は {cost} です。",
    "adopt-saving": "{language}で改善した手法はありませんが、{method}は運用コストを {saving} 下げ、損失は見られません。",
    "keep": "何もしない場合を上回る手法はありませんでした。",
    "keep-loses": "何もしない場合を上回る手法はありませんでした。{language}では{methods}が改善しましたが、"
                  "他での損失が許容範囲を超えています。",
    "keep-small": "何もしない場合を上回ると言える手法はありませんでした。{n} 項目では、約 {detectable} "
                  "より小さい変化は検出できません。",
    "undecided-smoke": "まだ何も決められません。動作確認で分かるのは {planned} 手法のうち {count} 手法が動くことであり、"
                       "その価値ではありません。",
    "undecided-unmeasured": "何も決められません。何もしない場合と比較できた手法がありません。",
    "equal": "学習する手法はいずれも、最大 {length} トークンの {rows} 行を {steps} ステップ学習し（エキスパートが 2 "
             "つの場合は半分ずつ）、すべて同じ項目で評価しました。",
    "note-unsure": "{measure}は許容範囲を超えて変化した可能性があります（{value}）。",
    "note-zeros": "ゼロも他の数値と同じように保存・読み込みされるため、モデルは小さくも速くもなりません。",
    "note-edits": "モデルは実行中に編集され、vLLM では利用できません。ファイルは元のままです。",
    "note-vocabulary": "新しいトークナイザです。トークンを数えるものと、そのキャッシュはすべて変わります。",
    "note-tables": "埋め込みと出力ヘッドは、全体が変わったものとして数えました。",
    "note-calibration": "{language} {own} 窓と英語 {english} 窓で校正しました。英語のテキストはこれ以上なく、--other en=FILE "
                        "で追加できます。",
    "note-half": "2 つのエキスパートを、それぞれ半分のステップ数で学習しました。",
    "note-tokens": "学習トークン数は {tokens} で、最も多い手法の {share} です。",
    "caveat-chosen": "手法の選択と効果の測定に同じ項目を使っています。別の項目では効果がやや小さくなると考えてください。",
    "caveat-family": "対象言語の判定は、比較した {count} 手法に対して補正しています。区間は個々のものです。",
    "caveat-losses": "対象言語以外の変化は、損失を見落とさないよう補正なしで個別に検定しています。原因のない変化でも 20 "
                     "件に 1 件は差として現れます。",
    "caveat-sampler": "{languages}のテキストは付属の小さなサンプルです。損失は大きい場合にだけ現れます。",
    "caveat-text": "テキストは先頭の {size} だけを使いました。",
    "caveat-rounds": "テキストを {rounds} 回繰り返して読みました。テキストが多ければ効果も増すと考えられます。",
    "caveat-budget": "{spent} かかり、予算の割り当て（{allowed}）を超えました。",
    "caveat-earlier": "予算の都合で、{stage}段階より多く学習できませんでした。",
    "oblige-notice": "{sources}：提供する際は、著作権表示とライセンス文を残してください。",
    "oblige-attribution": "{sources}：著作者を明記し、変更したことを示してください。",
    "oblige-share-alike": "{sources}：これから作ったものは、同じライセンスでのみ提供できます。",
    "oblige-non-commercial": "{sources}：商用利用はできません。",
    "oblige-terms": "{sources}：作ったものにも固有の利用規約が適用されます。確認してください。",
    "oblige-unknown": "{sources}：ライセンスの記載がないため、何も前提にできません。確認するか、--licence で指定してください。",
}  # fmt: skip
