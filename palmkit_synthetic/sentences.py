"""What is said in twelve languages: five sentences of training and two of tasks each, all written
for this project.

Recognising a language must not be recognising a sentence, so the two share no sentence and there
are several of each.
"""

SENTENCES = {  # of training, of tasks
    "English": (
        ("the weather is nice today and we are going to walk along the river with our friends before dinner",
         "please open the window because it is very warm in this room and the children want to sleep",
         "yesterday my brother found an old letter under the table and read it to the whole family",
         "could you tell me where the nearest station is and how much a ticket to the city costs",
         "in winter the mountains are white with snow and nobody climbs them without good shoes"),
        ("my sister bought a new bicycle last summer but she still takes the early train to the office",
         "we should ask the doctor whether grandfather may drink coffee again after his long illness")),
    "French": (
        ("le temps est beau aujourd'hui et nous allons marcher le long de la rivière avec nos amis",
         "ouvrez la fenêtre s'il vous plaît car il fait très chaud dans cette chambre et les enfants veulent dormir",
         "hier mon frère a trouvé une vieille lettre sous la table et il l'a lue à toute la famille",
         "pouvez vous me dire où se trouve la gare la plus proche et combien coûte un billet pour la ville",
         "en hiver les montagnes sont blanches de neige et personne ne les gravit sans bonnes chaussures"),
        ("ma sœur a acheté un nouveau vélo l'été dernier mais elle prend toujours le premier train",
         "il faudrait demander au médecin si grand père peut de nouveau boire du café après sa longue maladie")),
    "German": (
        ("das wetter ist heute schön und wir gehen vor dem abendessen mit unseren freunden am fluss spazieren",
         "bitte öffnen sie das fenster denn in diesem zimmer ist es sehr warm und die kinder wollen schlafen",
         "gestern hat mein bruder einen alten brief unter dem tisch gefunden und ihn der ganzen familie vorgelesen",
         "können sie mir sagen wo der nächste bahnhof ist und wie viel eine fahrkarte in die stadt kostet",
         "im winter sind die berge weiß von schnee und niemand besteigt sie ohne gute schuhe"),
        ("meine schwester hat letzten sommer ein neues fahrrad gekauft aber sie nimmt immer noch den frühen zug",
         "wir sollten den arzt fragen ob großvater nach seiner langen krankheit wieder kaffee trinken darf")),
    "Spanish": (
        ("hoy hace buen tiempo y vamos a caminar por la orilla del río con nuestros amigos antes de la cena",
         "abra la ventana por favor porque hace mucho calor en esta habitación y los niños quieren dormir",
         "ayer mi hermano encontró una carta vieja debajo de la mesa y se la leyó a toda la familia",
         "puede decirme dónde está la estación más cercana y cuánto cuesta un billete para la ciudad",
         "en invierno las montañas están blancas de nieve y nadie las sube sin buenos zapatos"),
        ("mi hermana compró una bicicleta nueva el verano pasado pero todavía toma el primer tren a la oficina",
         "deberíamos preguntar al médico si el abuelo puede volver a beber café después de su larga enfermedad")),
    "Italian": (
        ("oggi il tempo è bello e andiamo a camminare lungo il fiume con i nostri amici prima di cena",
         "apra la finestra per favore perché in questa stanza fa molto caldo e i bambini vogliono dormire",
         "ieri mio fratello ha trovato una vecchia lettera sotto il tavolo e l'ha letta a tutta la famiglia",
         "può dirmi dove si trova la stazione più vicina e quanto costa un biglietto per la città",
         "d'inverno le montagne sono bianche di neve e nessuno le sale senza buone scarpe"),
        ("mia sorella ha comprato una bicicletta nuova l'estate scorsa ma prende ancora il primo treno",
         "dovremmo chiedere al medico se il nonno può bere di nuovo il caffè dopo la sua lunga malattia")),
    "Russian": (
        ("сегодня хорошая погода и мы идём гулять вдоль реки с нашими друзьями перед ужином",
         "откройте пожалуйста окно потому что в этой комнате очень жарко и дети хотят спать",
         "вчера мой брат нашёл под столом старое письмо и прочитал его всей семье",
         "скажите пожалуйста где ближайший вокзал и сколько стоит билет до города",
         "зимой горы белые от снега и никто не поднимается на них без хорошей обуви"),
        ("моя сестра прошлым летом купила новый велосипед но она всё ещё ездит на работу ранним поездом",
         "надо спросить врача можно ли дедушке снова пить кофе после долгой болезни")),
    "Mandarin": (
        ("今天 天气 很好 我们 晚饭 前 和 朋友 一起 沿着 河边 散步 孩子 想 看 船",
         "请 打开 窗户 因为 这个 房间 很热 孩子们 想 睡觉",
         "昨天 我 弟弟 在 桌子 下面 找到 一封 旧信 读给 全家 听",
         "请问 最近 的 火车站 在哪里 到 城里 的 票 多少 钱",
         "冬天 山上 都是 白雪 没有 好鞋 谁也 不 上山"),
        ("我 姐姐 去年 夏天 买了 一辆 新 自行车 但是 她 还是 坐 早班 火车 去 办公室",
         "我们 应该 问 医生 爷爷 生病 这么久 以后 能不能 再 喝 咖啡")),
    "Hindi": (
        ("आज मौसम अच्छा है और हम रात के खाने से पहले अपने दोस्तों के साथ नदी के किनारे चलने जा रहे हैं",
         "कृपया खिड़की खोलिए क्योंकि इस कमरे में बहुत गर्मी है और बच्चे सोना चाहते हैं",
         "कल मेरे भाई को मेज़ के नीचे एक पुरानी चिट्ठी मिली और उसने पूरे परिवार को पढ़कर सुनाई",
         "क्या आप बता सकते हैं कि सबसे पास का स्टेशन कहाँ है और शहर का टिकट कितने का है",
         "सर्दियों में पहाड़ बर्फ़ से सफ़ेद होते हैं और अच्छे जूतों के बिना कोई उन पर नहीं चढ़ता"),
        ("मेरी बहन ने पिछली गर्मियों में नई साइकिल खरीदी लेकिन वह अब भी सुबह की रेलगाड़ी से दफ्तर जाती है",
         "हमें डॉक्टर से पूछना चाहिए कि लंबी बीमारी के बाद दादाजी फिर से कॉफ़ी पी सकते हैं या नहीं")),
    "Polish": (
        ("dzisiaj jest ładna pogoda i przed kolacją idziemy z przyjaciółmi na spacer wzdłuż rzeki",
         "proszę otworzyć okno bo w tym pokoju jest bardzo gorąco a dzieci chcą spać",
         "wczoraj mój brat znalazł pod stołem stary list i przeczytał go całej rodzinie",
         "czy może mi pan powiedzieć gdzie jest najbliższy dworzec i ile kosztuje bilet do miasta",
         "zimą góry są białe od śniegu i nikt nie wchodzi na nie bez dobrych butów"),
        ("moja siostra kupiła zeszłego lata nowy rower ale nadal jeździ do biura wczesnym pociągiem",
         "powinniśmy zapytać lekarza czy dziadek może znowu pić kawę po długiej chorobie")),
    "Portuguese": (
        ("hoje o tempo está bom e vamos caminhar ao longo do rio com os nossos amigos antes do jantar",
         "abra a janela por favor porque faz muito calor neste quarto e as crianças querem dormir",
         "ontem o meu irmão encontrou uma carta velha debaixo da mesa e leu a para toda a família",
         "pode dizer me onde fica a estação mais próxima e quanto custa um bilhete para a cidade",
         "no inverno as montanhas ficam brancas de neve e ninguém as sobe sem bons sapatos"),
        ("a minha irmã comprou uma bicicleta nova no verão passado mas ainda vai de comboio",
         "devíamos perguntar ao médico se o avô pode voltar a beber café depois da sua longa doença")),
    "Turkish": (
        ("bugün hava güzel ve akşam yemeğinden önce arkadaşlarımızla nehir boyunca yürüyeceğiz",
         "lütfen pencereyi açın çünkü bu oda çok sıcak ve çocuklar uyumak istiyor",
         "dün kardeşim masanın altında eski bir mektup buldu ve bütün aileye okudu",
         "en yakın istasyonun nerede olduğunu ve şehre bir biletin ne kadar olduğunu söyler misiniz",
         "kışın dağlar kardan bembeyaz olur ve kimse iyi ayakkabısı olmadan tırmanmaz"),
        ("kız kardeşim geçen yaz yeni bir bisiklet aldı ama hâlâ ofise sabah treniyle gidiyor",
         "doktora dedemin uzun hastalığından sonra yine kahve içip içemeyeceğini sormalıyız")),
    "Finnish": (
        ("tänään on kaunis sää ja kävelemme ystävien kanssa joen rannalla ennen illallista",
         "avaa ikkuna ole hyvä koska tässä huoneessa on hyvin kuuma ja lapset haluavat nukkua",
         "eilen veljeni löysi pöydän alta vanhan kirjeen ja luki sen koko perheelle",
         "voitteko sanoa missä on lähin asema ja paljonko lippu kaupunkiin maksaa",
         "talvella vuoret ovat lumesta valkoisia eikä kukaan kiipeä niille ilman hyviä kenkiä"),
        ("siskoni osti viime kesänä uuden polkupyörän mutta hän menee yhä toimistoon aikaisella junalla",
         "meidän pitäisi kysyä lääkäriltä saako isoisä taas juoda kahvia pitkän sairauden jälkeen")),
}  # fmt: skip
